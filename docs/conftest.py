"""What pytest leaves out here."""

# Its skeletons have examples that use what they define.
collect_ignore = ["developing.md"]
