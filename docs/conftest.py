"""Files that pytest skips here."""

# Skeletons have examples that use the names they define; Sphinx loads its extensions from there.
collect_ignore = ["developing.md", "_extensions"]
