"""The scenes that ship with the course: one to five photographs of the sample on real backgrounds, with known boxes and
masks.

``data/make_scenes.py`` creates them. The license (GPL-3) and the origins are in their folder.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from helpers import paths
from helpers.images import samples
from helpers.images.imageset import NO_CLASS, EmptyImageSet, ImageSet, concatenate
from helpers.images.reading import read_image
from helpers.text import read_csv

_OBJECTS, _PAIRS = "objects.csv", "pairs.csv"


class Box(NamedTuple):
    """A rectangle of whole pixels: columns ``x`` to ``x + width - 1`` and rows ``y`` to ``y + height - 1``."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene.

    Parameters
    ----------
    scene : the row of the scene in `Scenes.images`.
    photo : the row of the pasted photograph in `Scenes.photos`.
    class_name : its class in the sample.
    box : the smallest box around its visible pixels.
    visible_share : its visible pixels, divided by all of its pixels; other objects hide the rest.
    area_share : the area of the box, divided by that of the image.
    """

    scene: int
    photo: int
    class_name: str
    box: Box
    visible_share: float
    area_share: float


class PairQuery(NamedTuple):
    """Two photographs, as rows of `Scenes.photos`, and the only scene that shows both, as a row of `Scenes.images`."""

    first: int
    second: int
    scene: int


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images with known objects.

    Parameters
    ----------
    images : the scenes, with keys ``scenes/images/<number>.jpg``. They have no class, because most show several.
    photos : the photographs of the sample, with keys ``sample/photos/<class>/<name>.jpg``.
    objects : all objects, ordered by scene; in a scene, an object hides those before it.
    backgrounds : the name of the background of each scene.
    pairs : pairs of photographs of two classes. In their scene, each has at least a tenth of the image's area.
    """

    images: ImageSet
    photos: ImageSet
    objects: tuple[SceneObject, ...]
    backgrounds: tuple[str, ...]
    pairs: tuple[PairQuery, ...]

    def __len__(self) -> int:
        return len(self.images)

    def of(self, scene: int) -> tuple[SceneObject, ...]:
        """The objects of a scene, given by its row."""
        return tuple(self.objects[i] for i in np.flatnonzero(self.rows == scene))

    def masks(self, scene: int) -> np.ndarray:
        """bool (objects, height, width): the visible pixels of each object of a scene, given by its row."""
        path = self.images.paths[scene]
        numbers = read_image(path.parents[1] / "masks" / f"{path.stem}.png")[..., 0]
        return numbers == np.arange(1, len(self.of(scene)) + 1)[:, None, None]

    @cached_property
    def rows(self) -> np.ndarray:
        """int64 (objects,): the row of the scene of each object."""
        return np.array([each.scene for each in self.objects], np.int64)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 (objects,): the class of each object, an index into ``photos.class_names``."""
        return self.photos.labels[[each.photo for each in self.objects]]

    @cached_property
    def boxes(self) -> np.ndarray:
        """int64 (objects, 4): x, y, width and height of each object."""
        return np.array([each.box for each in self.objects], np.int64)

    def with_photos(self) -> ImageSet:
        """The photographs, followed by the scenes, as in the protocols ``scenes-…``."""
        return concatenate("scenes", [self.photos, self.images])


def load() -> Scenes:
    """The scenes and their objects.

    Raises
    ------
    EmptyImageSet : the scenes are missing.
    NotInCheckout : the library is installed without them.
    """
    data = paths.checkout("The scenes") / "data"
    folder = data / "scenes"
    if not (folder / _OBJECTS).is_file():
        raise EmptyImageSet(f"{folder} is incomplete. Restore it with git checkout, or run data/make_scenes.py.")
    sample = samples.photos()
    photos = ImageSet("scenes", sample.paths, sample.labels, sample.class_names, root=data)
    photo_of = {key: row for row, key in enumerate(sample.keys)}
    table = read_csv(folder / _OBJECTS)
    background_of = {row["image"]: row["background"] for row in table}
    keys = sorted(background_of)
    scene_of = {key: row for row, key in enumerate(keys)}
    files = tuple(folder / key for key in keys)
    images = ImageSet("scenes", files, np.full(len(files), NO_CLASS), sample.class_names, root=data)
    objects = tuple(_object(row, scene_of[row["image"]], photo_of[row["photo"]]) for row in table)
    pairs = tuple(
        PairQuery(photo_of[row["first"]], photo_of[row["second"]], scene_of[row["image"]])
        for row in read_csv(folder / _PAIRS)
    )
    return Scenes(images, photos, objects, tuple(background_of[key] for key in keys), pairs)


def _object(row: dict[str, str], scene: int, photo: int) -> SceneObject:
    box = Box(*(int(row[side]) for side in Box._fields))
    return SceneObject(scene, photo, row["class"], box, float(row["visible_share"]), float(row["area_share"]))
