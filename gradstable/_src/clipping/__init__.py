"""The rules as links of a chain, and clipping entry by entry."""
