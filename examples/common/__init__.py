"""What the examples share: options, faults, the two contestants, and their comparison."""
