"""What measures speed and rate: each module is a script."""
