"""A Wasserstein GAN, with and without a gradient penalty on its critic."""
