"""Protocols on the scenes: queries are single-object photographs, and the gallery is the scenes that show objects.

There are two tasks. In the known-item task, a scene is relevant if the query itself was pasted into it. In the class
task, a scene is relevant if it shows another photograph of the query's class; scenes with the query itself are ignored,
because they are found as copies.
"""

from collections import defaultdict
from collections.abc import Mapping

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
    listed, excluded = _split(scenes, {photo: pasted[photo] for photo in range(len(scenes.photos))}, areas)
    text = "Every photograph is a query. The scenes into which it was pasted are relevant."
    return _protocol(scenes, name, listed, excluded, text, areas)


def same_class(scenes: Scenes, name: str = "scenes-class", areas: tuple[float, float] = ALL_AREAS) -> Protocol:
    """Every photograph is a query. The scenes with other photographs of its class are relevant.

    Scenes with the photograph itself are ignored. For ``areas`` see `known_item`; in a scene with several objects of
    the class, the largest counts.
    """
    pasted = _largest(scenes, np.array([each.photo for each in scenes.objects]))
    of_class = _largest(scenes, scenes.labels)
    shown = {
        photo: {scene: area for scene, area in of_class[label].items() if scene not in pasted[photo]}
        for photo, label in enumerate(scenes.photos.labels.tolist())
    }
    listed, excluded = _split(scenes, shown, areas)
    for photo, ids in excluded.items():
        ids += [len(scenes.photos) + scene for scene in pasted[photo]]
    text = (
        "Every photograph is a query. The scenes with other photographs of its class are relevant. "
        "Scenes with the query itself are ignored."
    )
    return _protocol(scenes, name, listed, excluded, text, areas)


def _largest(scenes: Scenes, keys: np.ndarray) -> dict[int, dict[int, float]]:
    """Key of objects → scene → the largest area share of the objects with this key in the scene."""
    found: dict[int, dict[int, float]] = defaultdict(dict)
    for each, key in zip(scenes.objects, keys.tolist(), strict=True):
        found[key][each.scene] = max(each.area_share, found[key].get(each.scene, 0.0))
    return found


def _split(
    scenes: Scenes, shown: Mapping[int, Mapping[int, float]], areas: tuple[float, float]
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Photograph → ids of the scenes that show it with an area in the range, and ids of the other scenes with it."""
    low, high = areas
    if not 0 <= low < high <= 1:
        raise ValueError(f"areas must be two shares, the smaller one first, got {areas}")
    listed: dict[int, list[int]] = {photo: [] for photo in shown}
    excluded: dict[int, list[int]] = {photo: [] for photo in shown}
    for photo, area_of in shown.items():
        for scene, area in area_of.items():
            (listed if low <= area < high else excluded)[photo].append(len(scenes.photos) + scene)
    return listed, excluded


def _protocol(
    scenes: Scenes,
    name: str,
    listed: Mapping[int, list[int]],
    excluded: Mapping[int, list[int]],
    text: str,
    areas: tuple[float, float],
) -> Protocol:
    if areas != ALL_AREAS:
        text += (
            f" Scenes are ignored if the object has less than {areas[0]:.0%} or at least {areas[1]:.0%} of the area."
        )
    images = scenes.with_photos()
    is_photo = np.arange(len(images)) < len(scenes.photos)
    return query_gallery(images, is_photo, ~is_photo, name, excluded, text, listed)
