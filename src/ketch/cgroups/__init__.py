"""Control groups: one Manager interface, and v1, v2 and hybrid hierarchies behind it."""
