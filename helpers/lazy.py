"""Names that a package exports and imports at their first use, because some modules take seconds."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def exports(package: str, names_in: Mapping[str, Sequence[str]]) -> tuple[list[str], Callable[[str], Any]]:
    """The ``__all__`` and ``__getattr__`` of a package (PEP 562).

    package : its ``__name__``.
    names_in : module of the package → the names that are imported from it.
    """
    module_of = {name: module for module, names in names_in.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return sorted(module_of), get
