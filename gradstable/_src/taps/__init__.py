"""Statistics of values inside of a model, and of their gradients, without side effects."""
