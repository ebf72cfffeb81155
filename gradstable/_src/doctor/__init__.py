"""A diagnosis of a recorded run, by rules that are written down, and what to do about it."""
