"""Find and classify one digit on a noisy canvas."""
