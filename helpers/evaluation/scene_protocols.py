"""Protocols on the scenes: queries are single-object photographs, and the gallery is the scenes that show objects."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from helpers.evaluation.builders import query_gallery
from helpers.evaluation.protocol import Protocol
from helpers.images.scenes import Scenes

#: Every area share.
ALL_AREAS = (0.0, 1.0)


def known_item(scenes: Scenes, name: str = "scenes-known-item", areas: tuple[float, float] = ALL_AREAS) -> Protocol:
    """Every photograph is a query. The scenes with this photograph are relevant.

    areas : the smallest area of the object as a share of the image, and the area that it must be below. Scenes in which
        the object has another area are ignored.

    The images of the protocol are those of `Scenes.with_photos`.
    """
    pasted = _largest(scenes, np.array([each.photo for each in scenes.objects]))
    shown = {photo: pasted[photo] for photo in range(len(scenes.photos))}
    text = "Every photograph is a query. The scenes into which it was pasted are relevant."
    return _protocol(scenes, name, shown, {}, text, areas)


def same_class(scenes: Scenes, name: str = "scenes-class", areas: tuple[float, float] = ALL_AREAS) -> Protocol:
    """Every photograph is a query. The scenes with other photographs of its class are relevant.

    Scenes with the photograph itself are ignored, because they are found as copies. For ``areas`` see `known_item`; in
    a scene with several objects of the class, the largest counts.
    """
    pasted = _largest(scenes, np.array([each.photo for each in scenes.objects]))
    of_class = _largest(scenes, scenes.labels)
    shown = {
        photo: {scene: area for scene, area in of_class[label].items() if scene not in pasted[photo]}
        for photo, label in enumerate(scenes.photos.labels.tolist())
    }
    text = (
        "Every photograph is a query. The scenes with other photographs of its class are relevant. "
        "Scenes with the query itself are ignored."
    )
    return _protocol(scenes, name, shown, pasted, text, areas)


def _largest(scenes: Scenes, keys: np.ndarray) -> dict[int, dict[int, float]]:
    """Key of objects → scene → the largest area share of the objects with this key in the scene."""
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for each, key in zip(scenes.objects, keys.tolist(), strict=True):
        found[key][each.scene] = max(each.area_share, found[key].get(each.scene, 0.0))
    return found


def _protocol(
    scenes: Scenes,
    name: str,
    shown: Mapping[int, Mapping[int, float]],
    ignored: Mapping[int, Iterable[int]],
    text: str,
    areas: tuple[float, float],
) -> Protocol:
    """The protocol in which a scene is relevant to a photograph if it shows an object with an area in the range.

    shown : photograph → scene → area share of the object. ignored : photograph → scenes that are ignored in any case.
    """
    low, high = areas
    if not 0 <= low < high <= 1:
        raise ValueError(f"areas must be two shares, the smaller one first, got {areas}")
    if areas != ALL_AREAS:
        text += f" Scenes are ignored if the object has less than {low:.0%} or at least {high:.0%} of the area."
    images, first = scenes.with_photos(), len(scenes.photos)
    listed: dict[int, list[int]] = {}
    excluded: dict[int, list[int]] = {}
    for photo, area_of in shown.items():
        relevant = {scene for scene, area in area_of.items() if low <= area < high}
        listed[photo] = [first + scene for scene in relevant]
        excluded[photo] = [first + scene for scene in (area_of.keys() - relevant).union(ignored.get(photo, ()))]
    is_photo = np.arange(len(images)) < first
    return query_gallery(images, is_photo, ~is_photo, name, excluded, text, listed)
