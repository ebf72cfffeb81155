"""The implementation. The modules next to this folder list what is public."""
