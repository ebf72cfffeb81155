"""What an optimizer costs on a mesh of many devices: counted, nothing allocated or run."""
