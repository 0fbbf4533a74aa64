"""Checks of the exercises, one module per notebook: they raise an AssertionError with a hint for a wrong answer."""
