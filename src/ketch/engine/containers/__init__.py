"""What can be done to a container, a file a verb, and who may do it."""
