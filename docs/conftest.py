"""Files that pytest skips here."""

# Its skeletons have examples that use the names they define.
collect_ignore = ["developing.md"]
