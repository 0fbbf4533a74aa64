"""The query picker: choose a query in a notebook, search, and compare methods."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.picker.state import Picker
    from helpers.picker.view import show

__all__ = ["Picker", "show"]


def __getattr__(name: str) -> object:
    # Loaded at its first use: the state works without the widget's packages.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'state' if name == 'Picker' else 'view'}"), name)
