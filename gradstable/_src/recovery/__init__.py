"""What brings a run back, or keeps it going: gathering, dropping, returning, resuming."""
