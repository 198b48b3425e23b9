"""Containers as people use them: named, supervised, logged, recorded."""
