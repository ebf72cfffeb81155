"""Optimizer states on disk: what is in them, and how older ones become new ones."""
