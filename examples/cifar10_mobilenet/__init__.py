"""A small MobileNet and five convolutions on CIFAR-10, or on what stands in for it."""
