"""What encoders in folders share: the JSON and hashes of their files, and one vector from an output."""

import hashlib
import json
from collections.abc import Iterable
from math import isqrt
from pathlib import Path

import numpy as np

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
    """Hash of the names and contents of the files that exist; unchanged files are not read again."""
    found = sorted(path for path in set(files) if path.is_file())
    digest = hashlib.sha256()
    for path, content in zip(found, content_hashes(found), strict=True):
        digest.update(f"{path.relative_to(folder).as_posix()} ".encode() + content)
    return digest.hexdigest()


def pooled(output: np.ndarray, registers: int = 0, channels_axis: int = 1) -> np.ndarray:
    """The output of an encoder → one vector per image, (b, dim).

    - (b, dim) is the vector. An output of four axes is a feature map: the mean of its positions.
    - (b, tokens, dim): the first token if the number of tokens is a square plus 1 plus ``registers``, because the first
      one is then the class token and the last ones are a grid of patches; the mean if it is a square.

    registers : number of tokens between the class token and the patches. channels_axis : of a feature map, 1 or 3.

    Raises `EncoderError` for another number of tokens.
    """
    if output.ndim == 2:
        return output
    if output.ndim == 4:
        return output.mean(axis=(2, 3) if channels_axis == 1 else (1, 2))
    count = output.shape[1] if output.ndim == 3 else -1
    if count - 1 - registers > 0 and isqrt(count - 1 - registers) ** 2 == count - 1 - registers:
        return output[:, 0]
    if count > 0 and isqrt(count) ** 2 == count:
        return output.mean(axis=1)
    raise EncoderError(f"the output {output.shape} is neither a vector, nor a feature map, nor tokens of a square grid")
