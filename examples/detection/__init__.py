"""Find and name one digit on a noisy canvas."""
