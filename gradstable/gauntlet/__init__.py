"""The gauntlet: every optimizer through every storm, and what is left of it."""
