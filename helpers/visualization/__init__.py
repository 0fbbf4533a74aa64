"""What a person sees: grids, curves, maps and tables."""
