"""The query picker: choose a query in a notebook, search, and compare methods."""

from helpers import lazy

# The state works without the widget's packages.
__all__, __getattr__ = lazy.exports(__name__, {"state": ("Picker",), "view": ("show",)})
