"""What is on record of an engine's containers."""
