"""Volumes: recorded, filled, mounted, listed."""
