"""Where the code lives. What is public, the modules beside this folder list."""
