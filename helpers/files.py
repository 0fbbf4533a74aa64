"""Files that are written all at once."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file all at once: whoever reads it sees the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
