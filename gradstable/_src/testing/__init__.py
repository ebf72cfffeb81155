"""The contract suite: run it on your own transforms."""
