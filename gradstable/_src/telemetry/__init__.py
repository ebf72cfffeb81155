"""Record what happens during training, write it to files and trackers, and read it back."""
