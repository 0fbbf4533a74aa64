"""Search: engines, indexes, rankings and re-ranking."""

from importlib import import_module
from typing import Any

#: Module → names that are imported from it at their first use, because it needs NumPy or more.
_LAZY = {
    "engine": ("Engine",),
    "index": ("Index", "load_index", "open_index"),
    "persist.live": ("LiveEngine",),
    "ranking": ("Ranking", "rank"),
    "results": ("Result", "Results"),
}
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
