"""Synchronization: brings a saved engine up to date with the folder or table from which it was made."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.features.file_hashes import identities
from helpers.images.imageset import ImageSet
from helpers.search.engine import Engine, class_names_of
from helpers.search.gallery import GalleryTable
from helpers.search.identity import Additions, Outcome, compare, file_paths
from helpers.search.persist.live import LiveEngine


@dataclass(frozen=True, eq=False)
class Others:
    """The images of an engine that an image set does not list.

    Attributes
    ----------
    gone : int64 (m,), ids of images below the folder of the set whose files no longer exist.
    unlisted : of images below the folder whose files exist, such as files without a suffix that were added by name.
    elsewhere : of all other images: those that were added from other folders, and uploads.
    """

    gone: np.ndarray
    unlisted: np.ndarray
    elsewhere: np.ndarray

    @classmethod
    def of(cls, table: GalleryTable, ids: Iterable[int], images: ImageSet, own: Path) -> "Others":
        """Compare the images with these ids with an image set. ``own``: the engine's folder."""
        listed, paths = {str(path) for path in images.paths}, table.paths
        root = "\0" if images.root is None else f"{images.root.as_posix()}/"
        uploads = f"{own.absolute().as_posix()}/"
        gone, unlisted, elsewhere = [], [], []
        for id in ids:
            path = Path(paths[id]).as_posix()
            if paths[id] in listed:
                continue
            if not path.startswith(root) or path.startswith(uploads):
                elsewhere.append(id)
            elif Path(path).exists():
                unlisted.append(id)
            else:
                gone.append(id)
        return cls(*(np.array(part, np.int64) for part in (gone, unlisted, elsewhere)))


@dataclass(frozen=True, eq=False)
class Synchronized:
    """What a synchronization did: with the images of the set, and with the others (`Others`)."""

    additions: Additions
    others: Others


def sync(live: LiveEngine, images: ImageSet) -> Synchronized:
    """Add the new images of a set, replace the changed ones, and remove those whose files are gone.

    Afterwards, the engine's images are the readable ones of the set, and those that were added from elsewhere. The
    changes are one transaction.

    images : all images of the folder or the table from which the engine was made.

    Raises EngineFolderError or IndexFileError: nothing was changed: see `LiveEngine.refresh`, or it cannot be written.
    """
    live.refresh()
    candidates = live.engine.extract_candidates(images, classes=True)
    others = Others.of(live.engine.table, live.engine.index.ids.tolist(), images, live.folder)
    additions = live.apply(candidates, removed=others.gone.tolist(), classes=True, root=images.root)
    return Synchronized(additions, others)


@dataclass(frozen=True, eq=False)
class Preview:
    """What a synchronization would do, without features.

    Attributes
    ----------
    paths, outcomes : of the images of the set. A file that cannot be decoded counts as new or changed.
    others : the images that the set does not list.
    lost : int64 (m,), those of ``others.gone`` whose contents the set does not have under other names.
    """

    paths: list[str]
    outcomes: list[Outcome]
    others: Others
    lost: np.ndarray


def preview(engine: Engine, images: ImageSet, folder: Path) -> Preview:
    """What `sync` would do. The engine may be loaded without its extractor.

    folder : of the engine.
    """
    table, index = engine.table, engine.index
    others = Others.of(table, index.ids.tolist(), images, folder)
    paths = file_paths(table, images.paths)
    contents = identities(paths)
    known = compare(
        table,
        # An image that is removed and has a new name is not a copy.
        lambda ids: index.contains(ids) & ~np.isin(ids, others.gone),
        paths,
        contents,
        class_names_of(images),
    )
    present = set(contents)
    lost = [id for id in others.gone.tolist() if table.content(id) is None or table.content(id) not in present]
    return Preview(paths, [one.outcome for one in known], others, np.array(lost, np.int64))
