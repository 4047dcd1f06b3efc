"""Where training and test pictures come from."""
