"""``gradstable demo``: real images, a real network, and a storm of bad batches."""
