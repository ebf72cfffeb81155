"""A language model whose parameters and state lie in parts on many devices."""
