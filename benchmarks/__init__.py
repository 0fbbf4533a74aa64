"""Benchmarks of speed and memory. They compare methods in one run, and their numbers hold for that run only."""
