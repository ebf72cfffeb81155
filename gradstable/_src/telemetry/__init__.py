"""Record what happens while it happens; write it down; read it back."""
