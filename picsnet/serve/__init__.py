"""A service: a page to drop photographs on, and an HTTP API."""
