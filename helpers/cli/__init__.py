"""The command line: `lookalike` and its commands."""
