"""Folders of encoders: where they are, and the JSON and hashes of their files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from helpers.features.file_hashes import content_hashes


class EncoderError(ValueError):
    """The folder of an encoder, or a file in it, is missing, damaged or not supported; the message names it."""


def folder_of(place: str | Path) -> Path:
    """The absolute path of an existing folder, so that a saved engine finds it from everywhere.

    Raises `EncoderError`.
    """
    if not str(place):
        raise EncoderError("the folder of the encoder is missing: write onnx:FOLDER or hub:FOLDER")
    folder = Path(place).expanduser().resolve()
    if not folder.is_dir():
        raise EncoderError(
            f"the encoder folder {folder} does not exist. If it was moved, move it back or link it there."
        )
    return folder


def read_json(path: Path) -> dict:
    """The object in a JSON file, empty if there is no such file. Raises `EncoderError` if it is damaged."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise EncoderError(f"{path} is not a JSON object")
    return found


def files_hash(folder: Path, files: Iterable[Path]) -> str:
    """Hash of the names and contents of those of the files that exist; unchanged files are not read again."""
    found = sorted(path for path in set(files) if path.is_file())
    digest = hashlib.sha256()
    for path, content in zip(found, content_hashes(found), strict=True):
        digest.update(f"{path.relative_to(folder).as_posix()} ".encode() + content)
    return digest.hexdigest()
