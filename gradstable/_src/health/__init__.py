"""Read the state: numbers, sentences, and the end of the line."""
