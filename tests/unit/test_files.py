"""Atomic writes and content hashes."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from helpers.files import CONTENT_SIZE, content_hash, write_atomically, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [True, False])
def test_bytes_and_a_function_that_writes_them(tmp_path, durable):
    target = tmp_path / "new" / "folder" / "a.bin"
    assert write_atomically(target, b"one", durable) == target and target.read_bytes() == b"one"
    write_atomically(str(target), lambda file: [file.write(part) for part in (b"two", b", ", b"three")], durable)
    assert target.read_bytes() == b"two, three"
    numbers = np.arange(6).reshape(2, 3)
    write_atomically(target, lambda file: np.savez(file, numbers=numbers), durable)
    with np.load(target) as kept:
        assert np.array_equal(kept["numbers"], numbers)
    assert names(target.parent) == ["a.bin"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()])
def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing(tmp_path, error):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def write(file):
        file.write(b"half of the new")
        raise error

    with pytest.raises(type(error)):
        write_atomically(target, write)
    assert target.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("name", ["a", "abcd", "a longer name.jpg"])
def test_a_missing_file_gets_a_longer_value_than_a_hash(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = content_hash(name)
    Path(name).write_bytes(b"content")
    assert len(missing) > len(content_hash(name)) == CONTENT_SIZE


def test_a_failed_rename_leaves_nothing(tmp_path):
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "a.bin", b"new")
    assert names(tmp_path) == ["a.bin"]


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file" / "a.bin", b"new")


def test_readers_only_see_whole_files_while_others_write(tmp_path):
    target, contents = tmp_path / "a.bin", [bytes([letter]) * 200_000 for letter in b"abc"]
    write_atomically(target, contents[0])

    def write(content):
        for _ in range(30):
            write_atomically(target, content, durable=False)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    found = [target.read_bytes()]
    while any(writer.is_alive() for writer in writers):
        found.append(target.read_bytes())
    assert set(found) <= set(contents) and names(tmp_path) == ["a.bin"]


def test_text_is_utf_8_with_unix_line_ends(tmp_path):
    path = write_text(tmp_path / "ü.txt", "naïve\n→ 2\n")
    assert path.read_bytes() == b"na\xc3\xafve\n\xe2\x86\x92 2\n"


def test_equal_content_has_an_equal_hash(tmp_path):
    for name, content in {"a.jpg": b"one", "b.png": b"one", "c.jpg": b"two", "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
    a, b, c, empty = (content_hash(tmp_path / name) for name in ("a.jpg", "b.png", "c.jpg", "empty.jpg"))
    assert a == b and len({a, c, empty}) == 3 and len(a) == 16


def test_missing_files_have_different_hashes(tmp_path):
    hashes = {content_hash(tmp_path / "a.jpg"), content_hash(tmp_path / "b.jpg"), content_hash(tmp_path)}
    assert len(hashes) == 3
    # Some old archives have names that are not UTF-8.
    assert content_hash(Path(os.fsdecode(b"/nowhere/\xff.jpg"))) not in hashes
