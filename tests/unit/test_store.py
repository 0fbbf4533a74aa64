"""The store of vectors: order, damaged files, and folders that are not writable."""

import os
import sqlite3
import warnings

import numpy as np
import pytest

from helpers.features.store import VectorStore, VectorStoreError


def keys(n, start=0):
    return [b"%d" % i for i in range(start, start + n)]


@pytest.fixture
def filled(own_cache):
    """The file of a store of 500 vectors of dimension 256: about 20 pages."""
    with VectorStore("d", 256) as kept:
        kept.put(keys(500), np.ones((500, 256), np.float32))
        return kept.path


def test_existing_vectors_stay(own_cache):
    with VectorStore("d", 2) as kept:
        kept.put([b"a"], [[1, 2]])
        kept.put([b"a", b"b"], [[9, 9], [3, 4]])
        assert kept.get([b"a", b"b"]).tolist() == [[1, 2], [3, 4]] and len(kept) == 2


@pytest.mark.parametrize("key", ["image", "content"])
def test_a_file_of_an_earlier_version_is_continued(own_cache, key):
    """Earlier files have small pages and no row ids; the oldest have another name of the key."""
    path = own_cache / "vectors" / "d.sqlite"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as old:
        old.execute(f"CREATE TABLE vectors ({key} BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        old.execute("INSERT INTO vectors VALUES (?, ?)", (b"a", np.array([1, 2], "<f4").tobytes()))
    old.close()
    with VectorStore("d", 2) as kept:
        kept.put([b"a", b"b"], [[9, 9], [3, 4]])
        assert kept.get([b"a", b"b"]).tolist() == [[1, 2], [3, 4]] and len(kept) == 2


def test_more_images_than_variables_in_a_statement(own_cache):
    with VectorStore("d", 1) as kept:
        kept.put(keys(2500), np.arange(2500)[:, None])
        rows = keys(2500)[::-1]
        assert kept.get(rows)[:, 0].tolist() == list(range(2499, -1, -1))
        assert kept.known([*rows, b"unknown"]) == set(rows)
        assert kept.get([]).shape == (0, 1) and kept.known([]) == set()


def test_extractors_do_not_share_a_file(own_cache):
    with VectorStore("one", 2) as one, VectorStore("other", 2) as other:
        one.put([b"a"], [[1, 2]])
        assert len(other) == 0 and np.isnan(other.get([b"a"])).all()


@pytest.mark.parametrize("vectors", [np.ones((2, 3)), np.ones((1, 2)), np.ones(2)])
def test_vectors_of_another_shape_are_refused(own_cache, vectors):
    with VectorStore("d", 2) as kept:
        with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
            kept.put([b"a", b"b"], vectors)
        assert len(kept) == 0


def test_all_of_a_batch_or_nothing(own_cache):
    """The second image of the batch cannot be stored, so the first is not stored either."""
    with VectorStore("d", 2) as kept:
        with pytest.raises(VectorStoreError):
            kept.put([b"a", object()], np.ones((2, 2)))
        assert len(kept) == 0


@pytest.mark.parametrize("first, last", [(100, 4096), (20_480, 400_000), (204_800, 245_760)])
def test_damage_is_found_when_opened_or_when_read(filled, first, last):
    content = bytearray(filled.read_bytes())
    content[first:last] = os.urandom(last - first)
    filled.write_bytes(content)
    with pytest.raises(VectorStoreError, match=r"d\.sqlite is damaged(.|\n)*Move it"), VectorStore("d", 256) as kept:
        kept.get(keys(500))


def test_a_file_cut_in_half(filled):
    filled.write_bytes(filled.read_bytes()[: filled.stat().st_size // 2])
    with pytest.raises(VectorStoreError, match=r"d\.sqlite is damaged"), VectorStore("d", 256) as kept:
        kept.get(keys(500))


def test_after_deleting_a_damaged_file(filled):
    filled.write_bytes(b"oh" * 5000)
    with pytest.raises(VectorStoreError):
        VectorStore("d", 256)
    filled.unlink()
    with VectorStore("d", 256) as kept:
        assert len(kept) == 0


def test_a_folder_that_cannot_be_created(own_cache):
    """Below a file, where not even root can write: one warning, and the vectors are kept in memory."""
    own_cache.write_text("")
    with pytest.warns(UserWarning, match=r"can't be written(.|\n)*LOOKALIKE_CACHE") as caught:
        store = VectorStore("d", 2)
    with store as kept:
        kept.put([b"a"], [[1, 2]])
        assert kept.get([b"a"]).tolist() == [[1, 2]]
    assert len(caught) == 1


def test_a_read_only_file_is_noticed_when_it_is_opened(filled, monkeypatch):
    connect = sqlite3.connect

    def read_only(name, **options):
        return connect(name if name == ":memory:" else f"file:{name}?mode=ro", uri=name != ":memory:", **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with pytest.warns(UserWarning, match="readonly"), VectorStore("d", 256) as kept:
        kept.put([b"new"], np.ones((1, 256)))
        assert len(kept) == 1
    monkeypatch.undo()
    assert sqlite3.connect(filled).execute("SELECT count(*) FROM vectors").fetchone() == (500,)


def test_a_folder_with_spaces_and_umlauts(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "mein Ordner ü"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with VectorStore("d", 2) as kept:
            kept.put([b"a"], [[1, 2]])
    assert (tmp_path / "mein Ordner ü" / "vectors" / "d.sqlite").is_file()
