"""Read the state: as numbers, as sentences, and as an error when the run has diverged."""
