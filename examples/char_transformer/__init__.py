"""A small transformer that writes documentation, character by character."""
