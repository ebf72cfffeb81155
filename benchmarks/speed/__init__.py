"""Protected steps compared with bare ones, torch, and the memory bandwidth."""
