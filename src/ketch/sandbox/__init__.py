"""Running code that nobody has read: containers that are locked, bounded, and gone afterwards."""
