"""Sums of numbers, read and written character by character by two LSTMs."""
