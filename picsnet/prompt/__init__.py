"""Prompts: what is sent of a picture in words."""
