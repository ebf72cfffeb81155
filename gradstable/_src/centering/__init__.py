"""Mean stabilization: transforms that look at the mean and the spread of each unit."""
