"""Examples: each plants a fault and shows the same training with and without protection."""
