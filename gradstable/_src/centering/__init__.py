"""Mean stabilization: transforms that use the mean and the spread of each unit."""
