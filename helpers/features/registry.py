"""Feature extractors by name."""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from helpers.features.composite import Concatenated, Projected, with_shipped_projection
from helpers.features.extractor import FeatureExtractor

#: Modules with a table ``EXTRACTORS``: name → factory. They are imported at the first call.
MODULES = ("color_shape", "deep", "faces", "visual_words")

#: Beginning of a name, before a colon → module with ``open_encoder(place)``. The place is a folder or a preset.
ENCODERS = {"hub": "hub_encoder", "onnx": "onnx_encoder"}

#: Extractors with a shipped projection, learned by data/make_projections.py, and the dimensions of their variants.
PROJECTED = ("resnet50-gem", "efficientnet-lite0-gem")
DIMS = (16, 32, 64, 128, 256, 512)


def names() -> list[str]:
    """All names that `open_extractor` knows, without those of encoders, which have a place: ``onnx:FOLDER``."""
    return sorted(_factories())


def open_extractor(name: str, **settings: Any) -> FeatureExtractor:
    """Open an extractor by name, e.g. ``open_extractor("resnet50", size=256)``.

    Names joined by "+", such as "hog+hsv-histogram", open a `Concatenated` extractor. ``onnx:FOLDER``, ``hub:FOLDER``
    and ``hub:PRESET`` open an encoder. Raises KeyError for an unknown name, `WeightsUnavailable` if a network's trained
    weights are not available, and ValueError for an encoder's folder that is missing, incomplete or damaged.
    """
    parts = _parts(name)
    if len(parts) > 1:
        return Concatenated([open_extractor(part) for part in parts], **settings)
    kind, colon, place = name.partition(":")
    if colon and kind.lower() in ENCODERS:
        return import_module(f"helpers.features.{ENCODERS[kind.lower()]}").open_encoder(place, **settings)
    factories = _factories()
    if name.lower() not in factories:
        raise KeyError(f"no extractor is called {name!r}; known: {', '.join(sorted(factories))}")
    return factories[name.lower()](**settings)


def _parts(name: str) -> list[str]:
    """The parts of a name that are joined by "+"; a plus sign in the path of an existing folder joins nothing."""
    pieces = name.split("+")
    for size in range(len(pieces), 1, -1):
        first = "+".join(pieces[:size])
        kind, colon, place = first.partition(":")
        if colon and kind.lower() in ENCODERS and Path(place).expanduser().is_dir():
            break
    else:
        size, first = 1, pieces[0]
    return [first, *(_parts("+".join(pieces[size:])) if size < len(pieces) else [])]


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
