"""Tables: a small dense network on measurements of cells, or on a generated problem."""
