"""A language model whose parameters and state are split over many devices."""
