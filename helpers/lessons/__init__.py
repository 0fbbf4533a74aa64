"""Code that only notebooks use: lessons, checks of exercises, the notebook runner, comparisons and figures."""
