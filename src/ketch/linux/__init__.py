"""The kernel, one facility a file, without policy, under the kernel's own names."""
