"""Step size that sees health: caps, trust ratios, and companions of learning-rate schedules."""
