"""The command line: `lookalike` and its commands, one module for each family."""
