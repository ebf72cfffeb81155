"""Options of the example."""
