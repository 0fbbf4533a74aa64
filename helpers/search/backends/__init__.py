"""Backends: one index class per library or server."""
