"""A container's files: reached, copied, compared, committed."""
