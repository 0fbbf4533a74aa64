"""Feature extractors, and the store that keeps their vectors on disk."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.features.composite import Concatenated, Projected, TestTimeAugmentation  # noqa: F401
    from helpers.features.deep import ModelExtractor, NetworkExtractor  # noqa: F401
    from helpers.features.extractor import FeatureExtractor  # noqa: F401
    from helpers.features.registry import names, open_extractor  # noqa: F401

#: Public name → module. Each is imported at its first use, because some modules take seconds.
_MODULES = {
    "Concatenated": "composite",
    "FeatureExtractor": "extractor",
    "ModelExtractor": "deep",
    "NetworkExtractor": "deep",
    "Projected": "composite",
    "TestTimeAugmentation": "composite",
    "names": "registry",
    "open_extractor": "registry",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
