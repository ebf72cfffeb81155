"""Where parameters and state lie on a mesh: thin helpers over JAX's own shardings."""
