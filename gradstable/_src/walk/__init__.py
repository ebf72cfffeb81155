"""Programs run equation by equation, outside of ``jit``, to look at what each of them computes."""
