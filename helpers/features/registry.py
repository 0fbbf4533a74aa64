"""Feature extractors by name."""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module

from helpers.features.composite import Concatenated, Projected, with_shipped_projection
from helpers.features.extractor import FeatureExtractor

#: Modules with a table ``EXTRACTORS``: name → factory. They are imported at the first call.
MODULES = ("color_shape", "deep", "faces", "visual_words")

#: Extractors with a shipped projection, learned by data/make_projections.py, and the dimensions of their variants.
PROJECTED = ("resnet50-gem", "efficientnet-lite0-gem")
DIMS = (16, 32, 64, 128, 256, 512)


def names() -> list[str]:
    """All names that `open_extractor` knows."""
    return sorted(_factories())


def open_extractor(name: str, **settings) -> FeatureExtractor:
    """Open an extractor by name, e.g. ``open_extractor("resnet50", size=256)``.

    Names joined by "+", such as "hog+hsv-histogram", open a `Concatenated` extractor. Raises KeyError for an unknown
    name, and `WeightsUnavailable` if a network's trained weights are not available.
    """
    if "+" in name:
        return Concatenated([open_extractor(part) for part in name.split("+")], **settings)
    factories = _factories()
    if name.lower() not in factories:
        raise KeyError(f"no extractor is called {name!r}; known: {', '.join(sorted(factories))}")
    return factories[name.lower()](**settings)


@cache
def _factories() -> dict[str, Callable[..., FeatureExtractor]]:
    factories: dict[str, Callable[..., FeatureExtractor]] = {}
    for module in MODULES:
        factories |= import_module(f"helpers.features.{module}").EXTRACTORS
    for name in PROJECTED:
        factories |= {f"{name}-pcaw{dim}": partial(_open_projected, name, dim) for dim in DIMS}
    return factories


def _open_projected(name: str, dim: int, whitening: float | None = None) -> Projected:
    return with_shipped_projection(open_extractor(name), dim, whitening)
