"""A small MobileNet and five convolutions on CIFAR-10 or a stand-in."""
