"""One companion for the training loop: log, panel, capture, check, and report."""
