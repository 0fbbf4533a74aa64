"""Duplicates in an image set: copies, crops and mirror images, which leak from one side of a split to the other.

`audit` runs three searches, and confirms the last two on the pixels:

1. **bytes**: files with equal content;
2. **hash**, **mirror**: similar perceptual hashes, plain or mirrored (`helpers.images.perceptual_hashes`). This finds
   re-encoded, resized and mirrored copies;
3. **crop**: neighbors in an embedding that can be aligned (`helpers.images.crops`).

`recall` has the share of changed copies that they find, by change, as ``data/make_audit_recall.py`` measured it.

Memory does not depend on the sizes of the files. Per image, it holds about 1 KB, besides the embeddings.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from helpers import files, paths
from helpers.images.components import Components, Link
from helpers.images.crops import link_crops
from helpers.images.imageset import ImageSet
from helpers.images.perceptual_hashes import link_similar

if TYPE_CHECKING:
    import pandas as pd

#: In words, the recall of changed copies, and its least value.
LEVELS = {"found": 0.9, "partly found": 0.1, "not found": 0.0}


@dataclass(frozen=True)
class Pair:
    """A duplicate and the image that represents its group.

    Parameters
    ----------
    first, second : rows: the representative, and the duplicate.
    how : the search that found the duplicate: bytes, hash, mirror or crop.
    correlation : of the duplicate with the image of its group that it was compared with.
    compared : the row of that image; often the representative.
    """

    first: int
    second: int
    how: str
    correlation: float
    compared: int


@dataclass(frozen=True, eq=False)
class Audit:
    """The duplicates of one set.

    Copies of one original are a group. The first image of a group represents it; if the set is split, the first image
    on its lowest side. All others are duplicates, and each has one pair.

    Parameters
    ----------
    pairs : one for each duplicate, by representative.
    searched : the names of the searches.
    sides : int64 (n,), the side of each image of a split; None without a split.
    """

    images: ImageSet
    pairs: tuple[Pair, ...]
    searched: tuple[str, ...]
    sides: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def leaks(self) -> tuple[Pair, ...]:
        """The duplicates of an image on another side of the split."""
        if self.sides is None:
            return ()
        return tuple(pair for pair in self.pairs if self.sides[pair.first] != self.sides[pair.second])

    def groups(self) -> np.ndarray:
        """int64 (n,), for `ImageSet.groups`: one number for all copies of one original, -1 for images without copies.

        Existing groups of the set are merged with the new ones.
        """
        links = [(pair.first, pair.second) for pair in self.pairs]
        if self.images.groups is not None:
            for group in np.unique(self.images.groups[self.images.groups >= 0]):
                members = np.flatnonzero(self.images.groups == group)
                links += zip(members, members[1:], strict=False)
        return _numbered(len(self.images), links)

    def table(self) -> "pd.DataFrame":
        """One row per duplicate: the keys of the representative and of the duplicate, the search, the correlation, and
        whether their classes are equal."""
        import pandas as pd

        keys, labels = self.images.keys, self.images.labels
        return pd.DataFrame(
            [
                (keys[p.first], keys[p.second], p.how, p.correlation, bool(labels[p.first] == labels[p.second]))
                for p in self.pairs
            ],
            columns=["first", "second", "how", "correlation", "same class"],
        )

    def __str__(self) -> str:
        count = ", ".join(f"{sum(p.how == how for p in self.pairs)} by {how}" for how in self.searched)
        return f"{self.images.name}: {len(self)} pairs of the same image among {len(self.images)} ({count})"


def audit(
    images: ImageSet, vectors: np.ndarray | None = None, sides: ArrayLike | None = None, workers: int = 2
) -> Audit:
    """Search a set for duplicates. Images that cannot be read are skipped, and one warning lists them.

    Parameters
    ----------
    images : all sides of a split in one set.
    vectors : float32 (n, dim), embeddings of any length. Without them crops are not searched.
    sides : (n,), the side of each image, if the set is split. Each side is searched for crops separately, so that many
        similar images on one side do not hide a crop on another.
    """
    if vectors is not None and len(vectors) != len(images):
        raise ValueError(f"expected one vector for each of {len(images)} images, got {len(vectors)}")
    side = None if sides is None else np.unique(np.asarray(sides), return_inverse=True)[1]
    if side is not None and side.shape != (len(images),):
        raise ValueError(f"expected one side for each of {len(images)} images, got shape {side.shape}")
    of = np.zeros(len(images), np.int64) if side is None else side
    found = Components(len(images))
    _link_equal_files(images, found)
    rows = link_similar(images, found, workers)
    if vectors is not None:
        link_crops(images, vectors, found, rows, of, workers)
    searched = ("bytes", "hash", "mirror") + (() if vectors is None else ("crop",))
    return Audit(images, tuple(_pairs(found.links, of)), searched, side)


def recall(searched: Sequence[str]) -> "pd.DataFrame":
    """The share of changed copies that an audit finds, measured on the photographs of the sample with ResNet50.

    searched : the names of the searches, as in `Audit.searched`.

    Returns
    -------
    A table with the columns change, images, recall, false_alarms (copies in a group with another photograph or its
    copy) and level (one of `LEVELS`).
    """
    import pandas as pd

    table = pd.read_csv(paths.data_dir() / "audit_recall.csv", keep_default_na=False)
    table = table[table["extractor"] == ("resnet50" if "crop" in searched else "none")]
    table["level"] = [next(level for level, least in LEVELS.items() if value >= least) for value in table["recall"]]
    return table.drop(columns="extractor").reset_index(drop=True)


def split_siblings(images: ImageSet, sides: ArrayLike) -> np.ndarray:
    """int64: the groups (copies of one original, augmented siblings) with images on several sides of a split."""
    if images.groups is None:
        return np.array([], dtype=np.int64)
    # Each group once for each of its sides.
    found = np.unique(np.stack([images.groups, np.unique(sides, return_inverse=True)[1]]), axis=1)[0]
    groups, counts = np.unique(found[found >= 0], return_counts=True)
    return groups[counts > 1]


def _link_equal_files(images: ImageSet, found: Components) -> None:
    by_size: dict[int, list[int]] = defaultdict(list)
    for row, path in enumerate(images.paths):
        if path.is_file():
            by_size[path.stat().st_size].append(row)
    for rows in by_size.values():
        first_of: dict[bytes, int] = {}
        for row in rows if len(rows) > 1 else ():
            first = first_of.setdefault(files.content_hash(images.paths[row]), row)
            if first != row:
                found.join(Link(first, row, "bytes", 1.0))


def _pairs(links: Sequence[Link], sides: np.ndarray) -> Iterator[Pair]:
    """The pair of each duplicate, by representative; ``links`` form a tree in each group."""
    links_of: dict[int, list[tuple[int, Link]]] = defaultdict(list)
    for link in links:
        links_of[link.first].append((link.second, link))
        links_of[link.second].append((link.first, link))
    reached: set[int] = set()
    # The first row of a group in this order represents it.
    for first in sorted(links_of, key=lambda row: (sides[row], row)):
        if first in reached:
            continue
        reached.add(first)
        group, todo = [], [first]
        while todo:
            row = todo.pop()
            for other, link in links_of[row]:
                if other not in reached:
                    reached.add(other)
                    todo.append(other)
                    group.append(Pair(first, other, link.how, link.correlation, compared=row))
        yield from sorted(group, key=lambda pair: pair.second)


def _numbered(n: int, links: Iterable[tuple[int, int]]) -> np.ndarray:
    """The connected components as int64 (n,) 0, 1, …; -1 is an image without a link."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = np.array(list(links), dtype=np.int64).reshape(-1, 2).T
    _, component = connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(n, n)), directed=False)
    members = np.bincount(component)[component]
    groups = np.full(n, -1, dtype=np.int64)
    linked = members > 1
    groups[linked] = np.unique(component[linked], return_inverse=True)[1]
    return groups
