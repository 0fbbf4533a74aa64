"""The commands of `lookalike`, one module a family; `helpers.cli` puts them together."""
