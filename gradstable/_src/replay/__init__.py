"""Whether a computation gives the same bits again, and whether copies are still equal."""
