"""Which operation made the first value that is not finite."""
