"""Many pictures on many machines: recipes that hold models on each worker."""
