"""Where parameters and state are placed on a mesh: thin helpers over JAX's own shardings."""
