"""The rules as chainable transforms."""
