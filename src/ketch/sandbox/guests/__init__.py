"""The programs that run inside sandboxes, in the image's own interpreters: read as text."""
