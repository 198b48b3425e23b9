"""Benchmarks against the engines that people use: ``make bench``."""
