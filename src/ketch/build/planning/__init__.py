"""From a Dockerfile to a plan: what is made of what, and what the image is."""
