"""Relocation: stores a new place of images that were moved."""

from pathlib import Path

import numpy as np

from helpers.features.file_hashes import identities
from helpers.search.engine import Engine, UnopenedExtractor
from helpers.search.persist import snapshot
from helpers.search.persist.engine_file import EngineFile
from helpers.search.persist.roots import GALLERY, Root, Roots, new_root

#: The number of files whose contents are compared.
_COMPARED = 20


def relocate(engine_folder: str | Path, place: str | Path, former: str | Path | None = None) -> tuple[int, int]:
    """Store where the images of one root of a saved engine are now; running processes notice it.

    Parameters
    ----------
    place : the folder that holds the images now.
    former : the folder that held them; by default the only one that is missing, or else the gallery's folder.

    Returns
    -------
    The number of images of this root, and the number of them whose files exist in the new place.

    Raises
    ------
    ValueError : it is not clear which root is meant, or the folder does not hold most of its images.
    EngineFolderError, IndexFileError : the engine cannot be read or written; nothing was changed.
    """
    folder, place = Path(engine_folder), Path(place).resolve()
    engine = Engine.load(folder, UnopenedExtractor.of(folder), mmap=True)
    table, roots = engine.table, engine.saved.roots
    root = _chosen(roots, None if former is None else Path(former))
    number, paths = root.stored.number, table.paths
    ids = [id for id in engine.index.ids.tolist() if roots.number_of(paths[id]) == number]
    files = {id: place / paths[id][len(root.start) :] for id in ids}
    there = [id for id in ids if files[id].is_file()]
    if 2 * len(there) < len(ids):
        raise ValueError(
            f"{place} holds {len(there)} of the {len(ids)} images of {root.path} under their names; nothing was "
            "changed. Give the folder that holds these images"
        )
    rows = np.unique(np.linspace(0, len(there) - 1, min(_COMPARED, len(there))).astype(int))
    compared = [there[row] for row in rows]
    now = identities([files[id] for id in compared])
    equal = sum(table.content(id) in (None, content) for id, content in zip(compared, now, strict=True))
    if 2 * equal < len(compared):
        raise ValueError(
            f"{place} holds other images of the same names: {len(compared) - equal} of {len(compared)} that were "
            f"compared differ from those of {root.path}; nothing was changed"
        )
    with EngineFile(folder) as file, file.writing() as connection:
        snapshot.write_roots(connection, [new_root(folder, number, str(place)).stored])
    return len(ids), len(there)


def _chosen(roots: Roots, former: Path | None) -> Root:
    every, missing = list(roots), roots.missing
    if former is not None:
        names = {str(former), str(former.absolute()), str(former.resolve())}
        found = [root for root in every if names & {root.path, root.stored.path}]
        if not found:
            known = ", ".join(root.path for root in every)
            raise ValueError(f"the engine holds no images of {former}; its folders are {known or 'only its own'}")
        return found[0]
    if len(missing) == 1:
        return missing[0]
    gallery = [root for root in every if root.stored.number == GALLERY]
    if missing or not gallery:
        several = ", ".join(root.path for root in missing or every)
        raise ValueError(f"name the former folder of these images with --from; it is one of {several}")
    return gallery[0]
