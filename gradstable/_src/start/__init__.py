"""What can be done before the first step."""
