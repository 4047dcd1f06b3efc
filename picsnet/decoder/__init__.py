"""The frozen diffusion decoder: which one, how it is run, and how a file names it."""
