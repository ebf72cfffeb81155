"""What an optimizer costs on a mesh of many devices, without allocating or running anything."""
