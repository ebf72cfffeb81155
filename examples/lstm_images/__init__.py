"""Handwritten digits, read row by row by an LSTM."""
