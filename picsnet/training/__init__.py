"""LightningModules and the run that trains them. Decoding a file never imports this package."""
