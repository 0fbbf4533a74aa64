"""Reads and writes protocols as JSON, and finds the frozen ones in ``data/protocols``."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from helpers import paths
from helpers.evaluation.protocol import Protocol
from helpers.files import write_text

#: The formats of the JSON files: with relevant images by class, and with listed ones. Other formats are refused.
FORMAT, FORMAT_LISTED = 2, 3


class ProtocolFileError(ValueError):
    """A file does not contain a valid protocol."""


def save(protocol: Protocol, path: str | Path) -> Path:
    """Write a protocol as JSON, one image per line. The write is atomic."""
    groups = [] if protocol.groups is None else [protocol.groups.tolist()]
    images = zip(protocol.keys, protocol.labels.tolist(), *groups, strict=True)
    parts = {
        "format": str(FORMAT if protocol.listed is None else FORMAT_LISTED),
        "name": json.dumps(protocol.name),
        "dataset": json.dumps(protocol.dataset),
        "description": json.dumps(protocol.description),
        "class_names": _lines([json.dumps(name) for name in protocol.class_names]),
        "grouped": json.dumps(protocol.groups is not None),
        "queries": _lines(_wrapped(_ranges(protocol.queries))),
        "gallery": _lines(_wrapped(_ranges(protocol.gallery))),
        "excluded": _ids_of_queries(protocol.excluded),
        **({} if protocol.listed is None else {"listed": _ids_of_queries(protocol.listed)}),
        "images": _lines([json.dumps(image) for image in images]),
    }
    lines = (f'"{key}": {value}' for key, value in parts.items())
    return write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _ids_of_queries(ids_of: Mapping[int, tuple[int, ...]]) -> str:
    """One query per line."""
    return _lines([f'"{query}": {json.dumps(ids)}' for query, ids in ids_of.items()], "{}")


def load(path: str | Path) -> Protocol:
    """Read a file that `save` wrote.

    Raises
    ------
    FileNotFoundError : the file does not exist.
    ProtocolFileError : the file is not JSON (perhaps truncated), has another format, or contains no valid protocol.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Write a protocol there with protocol_files.save.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format"]
        if version in (FORMAT, FORMAT_LISTED):
            return _from_json(content)
    except (KeyError, TypeError, ValueError) as error:  # also those of broken JSON and broken UTF-8
        raise ProtocolFileError(
            f"{path} is not a complete and valid protocol, perhaps truncated: {type(error).__name__}: {error}. "
            "Restore the file (git checkout) or write it again with protocol_files.save."
        ) from error
    raise ProtocolFileError(
        f"{path} has format {version!r}; this version reads formats {FORMAT} and {FORMAT_LISTED}. "
        "Read it with the version that wrote it, or write the protocol again with protocol_files.save."
    )


def _from_json(content: dict) -> Protocol:
    columns = list(zip(*content["images"], strict=True))
    expected = 3 if content["grouped"] else 2
    if len(columns) != expected:
        raise ValueError(f"each image must be a list of {expected} values, got {len(columns)}")
    return Protocol(
        name=content["name"],
        dataset=content["dataset"],
        description=content["description"],
        keys=columns[0],
        labels=np.asarray(columns[1]),
        class_names=content["class_names"],
        queries=_from_ranges(content["queries"]),
        gallery=_from_ranges(content["gallery"]),
        groups=np.asarray(columns[2]) if content["grouped"] else None,
        excluded=_from_ids_of_queries(content, "excluded"),
        listed=_from_ids_of_queries(content, "listed") if content["format"] == FORMAT_LISTED else None,
    )


def _from_ids_of_queries(content: dict, part: str) -> dict[int, tuple[int, ...]]:
    """The ids that ``_ids_of_queries`` wrote."""
    if not isinstance(content[part], dict):
        raise ValueError(f"{part} must be an object of queries and their ids, got {content[part]!r}")
    return {int(query): tuple(ids) for query, ids in content[part].items()}


def frozen_names() -> tuple[str, ...]:
    """The names of the protocols in ``data/protocols``."""
    folder = paths.protocols_dir()
    return tuple(sorted(file.stem for file in folder.glob("*.json"))) if folder.is_dir() else ()


def frozen(name: str) -> Protocol:
    """Load a protocol of ``data/protocols`` by its name.

    Raises
    ------
    FileNotFoundError : the name is unknown; the message lists the known ones.
    ProtocolFileError : the file is damaged.
    """
    if name not in frozen_names():
        raise FileNotFoundError(
            f"there is no frozen protocol {name!r} in {paths.protocols_dir()}; "
            f"available: {', '.join(frozen_names()) or '(none)'}"
        )
    return load(paths.protocols_dir() / f"{name}.json")


def _ranges(ids: np.ndarray) -> list[int | str]:
    """[0, 1, 2, 3, 7] → ["0-3", 7], in the same order."""
    items: list[int | str] = []
    for part in np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1):
        first, last = int(part[0]), int(part[-1])
        items.append(first if first == last else f"{first}-{last}")
    return items


def _from_ranges(items: list[int | str]) -> np.ndarray:
    """The ids that ``_ranges`` wrote."""
    parts = []
    for item in items:
        first, last = (int(end) for end in item.split("-")) if isinstance(item, str) else (item, item)
        if last < first:
            raise ValueError(f"the range {item!r} runs backwards")
        parts.append(np.arange(first, last + 1))
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _wrapped(items: list, per_line: int = 16) -> list[str]:
    """JSON items, ``per_line`` in each string."""
    return [", ".join(json.dumps(item) for item in items[i : i + per_line]) for i in range(0, len(items), per_line)]


def _lines(items: list[str], brackets: str = "[]") -> str:
    return brackets[0] + "".join(f"{',' if i else ''}\n {item}" for i, item in enumerate(items)) + "\n" + brackets[1]
