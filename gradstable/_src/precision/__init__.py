"""Low-precision training: a loss scale, small moments, and parameters that keep moving."""
