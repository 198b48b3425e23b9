"""Images: recorded, brought in and out, listed, removed."""
