"""Keep the batch of a bad step on disk, and read it back."""
