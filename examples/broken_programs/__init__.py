"""Five programs that break, and what finds out why."""
