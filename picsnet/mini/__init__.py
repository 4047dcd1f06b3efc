"""picsnet-mini: a Stable Diffusion pipeline small enough to ship, and what it is built from."""
