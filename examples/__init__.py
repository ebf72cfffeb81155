"""Examples: each injects a fault and shows the same training with and without protection."""
