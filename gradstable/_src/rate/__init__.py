"""Step sizes that follow the run's health: caps, trust ratios, and additions to schedules."""
