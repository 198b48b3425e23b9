"""What goes on around a container's program: zygote, monitor, and what they fork."""
