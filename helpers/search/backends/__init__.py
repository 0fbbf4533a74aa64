"""Backends: one index class for each library or server."""
