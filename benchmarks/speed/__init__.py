"""Protected steps beside bare ones, beside torch, and beside what the memory can do."""
