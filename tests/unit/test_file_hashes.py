"""Cached content hashes: changed files are read again, others are not."""

import os
import sqlite3
import threading
import time

import pytest

from helpers.features import file_hashes
from helpers.features.file_hashes import content_hashes
from helpers.features.store import VectorStoreError
from helpers.files import content_hash

LATER = 10 * file_hashes.SETTLED_NS


@pytest.fixture
def files(tmp_path):
    files = [tmp_path / "images" / f"{number}.jpg" for number in range(5)]
    files[0].parent.mkdir()
    for number, file in enumerate(files):
        file.write_bytes(b"image %d" % number)
    return files


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read, in order."""
    names = []

    def reading(file):
        names.append(file.name)
        return content_hash(file)

    monkeypatch.setattr(file_hashes, "content_hash", reading)
    return names


@pytest.fixture
def later(monkeypatch):
    """Set the clock forward, so that new files count as unchanged for long."""
    now = time.time_ns
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: now() + LATER)


def test_a_second_call_reads_nothing(own_cache, files, read, later):
    first = content_hashes(files)
    assert first == [content_hash(file) for file in files] and read == [file.name for file in files]
    assert content_hashes(files[::-1]) == first[::-1] and len(read) == 5


@pytest.mark.parametrize("change", ["content", "size", "other file"])
def test_a_changed_file_is_read_again(own_cache, files, read, later, change):
    before = content_hashes(files)
    if change == "content":
        files[2].write_bytes(b"IMAGE 2")
    elif change == "size":
        files[2].write_bytes(b"a longer image")
    else:
        files[3].replace(files[2])
        files[3].write_bytes(b"image 3")
    read.clear()
    after = content_hashes(files)
    assert "2.jpg" in read and "0.jpg" not in read
    assert after[2] == content_hash(files[2]) != before[2] and after[3] == before[3]


@pytest.mark.skipif(os.name == "nt", reason="NOT TESTED: Windows has no time of the last status change")
def test_a_change_is_noticed_despite_its_modification_time(own_cache, files, read, later):
    state = files[0].stat()
    before = content_hashes(files)
    files[0].write_bytes(b"IMAGE 0")
    os.utime(files[0], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert files[0].stat().st_mtime_ns == state.st_mtime_ns and files[0].stat().st_size == state.st_size
    assert content_hashes(files)[0] == content_hash(files[0]) != before[0]


def test_the_hash_of_a_new_file_is_not_stored(own_cache, files, read, monkeypatch):
    """It may change again within the resolution of its time stamps."""
    changed = files[0].stat().st_ctime_ns
    for since, reads in ((file_hashes.SETTLED_NS - 1, 1), (file_hashes.SETTLED_NS, 1), (file_hashes.SETTLED_NS, 0)):
        monkeypatch.setattr(file_hashes.time, "time_ns", lambda since=since: changed + since)
        read.clear()
        content_hashes(files[:1])
        assert len(read) == reads


def test_the_hash_of_a_file_that_changes_while_it_is_read_is_not_stored(own_cache, files, later, monkeypatch):
    def changing(file):
        found = content_hash(file)
        if file == files[1]:
            file.write_bytes(b"new content")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(file_hashes, "content_hash", changing)
        old = content_hashes(files)
    assert content_hashes(files)[1] == content_hash(files[1]) != old[1]


def test_missing_files_and_folders_are_not_stored(own_cache, files, tmp_path, later):
    listed = [files[0], tmp_path / "missing.jpg", tmp_path]
    first = content_hashes(listed)
    assert first == [content_hash(path) for path in listed]
    (tmp_path / "missing.jpg").write_bytes(b"here now")
    assert content_hashes(listed)[1] == content_hash(tmp_path / "missing.jpg")
    rows = sqlite3.connect(own_cache / "file-hashes.sqlite").execute("SELECT count(*) FROM vectors").fetchone()
    assert rows == (2,)


def test_more_files_than_one_step(own_cache, tmp_path, read, later, monkeypatch):
    monkeypatch.setattr(file_hashes, "_BATCH", 3)
    files = [tmp_path / f"{number}" for number in range(10)]
    for file in files:
        file.write_bytes(file.name.encode())
    assert content_hashes(files) == content_hashes(files) == [content_hash(file) for file in files]
    assert len(read) == 10


def test_without_a_folder_to_write_to_files_are_read_each_time(own_cache, files, read, later, recwarn):
    own_cache.write_text("a file where the folder should be")
    assert content_hashes(files) == content_hashes(files) == [content_hash(file) for file in files]
    assert len(read) == 10 and not recwarn.list, "the vector store warns instead"


def test_a_damaged_file_is_named(own_cache, files):
    own_cache.mkdir()
    (own_cache / "file-hashes.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(VectorStoreError, match=r"file-hashes\.sqlite is damaged(.|\n)*Move it"):
        content_hashes(files)


def test_another_process_that_writes_is_waited_for(own_cache, files, later):
    content_hashes(files[:1])
    other = sqlite3.connect(own_cache / "file-hashes.sqlite", check_same_thread=False, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    found = []
    waiting = threading.Thread(target=lambda: found.append(content_hashes(files)))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive() and not found
    other.execute("COMMIT")
    waiting.join(20)
    assert found == [[content_hash(file) for file in files]]
