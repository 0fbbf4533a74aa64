"""What people really do wrong, one test each: an error that names file and remedy, or a counted warning."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from helpers.evaluation import builders, metrics, runner
from helpers.features import store
from helpers.features.color_shape import Pixels
from helpers.images import download, samples
from helpers.images.duplicates import audit
from helpers.images.folders import from_folder
from helpers.images.imageset import EmptyImageSet
from helpers.images.reading import UnreadableImageWarning, readable
from helpers.search.engine import Engine
from helpers.search.index import IndexFileError, load_index, open_index


@pytest.fixture
def folder(tmp_path, own_cache):
    """Two classes of three sample photographs each, as a folder of one's own."""
    photos = samples.photos()
    for label in (0, 2):
        for row in np.flatnonzero(photos.labels == label)[:3]:
            target = tmp_path / "mine" / photos.class_name(row) / photos.paths[row].name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(photos.paths[row].read_bytes())
    return tmp_path / "mine"


@pytest.fixture
def engine(folder):
    return Engine(Pixels(), "exact:cosine").fit(from_folder(folder))


def test_empty_folder(tmp_path):
    with pytest.raises(EmptyImageSet, match=f"{tmp_path.name} contains no images"):
        from_folder(tmp_path)


def test_folder_with_one_image(folder):
    for path in sorted(folder.rglob("*.jpg"))[1:]:
        path.unlink()
    images = from_folder(folder)
    engine = Engine(Pixels()).fit(images)
    assert len(engine.query(images.paths[0], k=5)) == 1
    with pytest.raises(ValueError, match="no class has two images"):
        builders.leave_one_out(images, "one")


def test_no_sub_folders(folder):
    for path in list(folder.rglob("*.jpg")):
        path.rename(folder / path.name)
    images = from_folder(folder)
    assert images.class_names == () and set(images.labels) == {-1}
    assert len(Engine(Pixels()).fit(images).query(images.paths[0], k=3)) == 3
    with pytest.raises(ValueError, match="sub-folder per class"):
        builders.leave_one_out(images, "none")


def test_class_with_one_image(folder):
    """Its image is a distractor: no query by default, and as a query it is reported and left out of the mean."""
    for path in sorted((folder / "fish").iterdir())[1:]:
        path.unlink()
    images = from_folder(folder)
    assert builders.leave_one_out(images, "birds").n_distractors == 1
    all_queries = replace(builders.leave_one_out(images, "all"), queries=np.arange(len(images)))
    ranking = runner.run(all_queries, Pixels().extract(images), open_index("exact:cosine"))
    with pytest.warns(metrics.NoRelevantImageWarning, match="1 of 4 queries"):
        assert metrics.evaluate(ranking, all_queries).n_queries == 3


def test_duplicates(folder):
    original = next((folder / "birds").iterdir())
    (folder / "birds" / "zz copy.jpg").write_bytes(original.read_bytes())
    images = from_folder(folder)
    found = audit(images)
    assert [(pair.how, images.paths[pair.second].name) for pair in found.pairs] == [("bytes", "zz copy.jpg")]


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0 only a beginning"])
def test_file_that_is_no_image(folder, content):
    (folder / "birds" / "odd.jpg").write_bytes(content)
    images = from_folder(folder)
    with pytest.warns(UnreadableImageWarning, match=r"1 of 7 images(.|\n)*odd\.jpg"):
        assert len(readable(images)) == 6


def test_truncated_image_is_left_out_of_the_index(folder):
    broken = next((folder / "fish").iterdir())
    broken.write_bytes(broken.read_bytes()[:-200])
    images = from_folder(folder)
    with pytest.warns(UnreadableImageWarning, match=f"1 of 6(.|\n)*{broken.name}") as caught:
        engine = Engine(Pixels()).fit(images)
    assert len(caught) == 1
    assert broken not in [result.path for result in engine.query(images.paths[0], k=6)]


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_k_that_is_no_number_of_results(engine, k):
    with pytest.raises((ValueError, TypeError), match="k"):
        engine.query(engine.gallery.paths[0], k=k)


def test_k_larger_than_the_gallery(engine):
    results = engine.query(engine.gallery.paths[0], k=100)
    assert len(results) == 6 and "6" in results.note


def test_vector_of_the_wrong_dimension(engine):
    with pytest.raises(ValueError, match="512.*256"):
        engine.index.search(np.ones((1, 512), np.float32), 3)


def test_nan_in_a_vector(engine):
    vector = np.ones((2, 256), np.float32)
    vector[1, 5] = np.nan
    with pytest.raises(ValueError, match="row 1"):
        engine.index.search(vector, 3)


def test_index_file_truncated_or_of_another_version(engine, tmp_path):
    path = engine.index.save(tmp_path / "a.index")
    (tmp_path / "cut.index").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(IndexFileError, match=r"cut\.index"):
        load_index(tmp_path / "cut.index")
    (tmp_path / "text.index").write_text("something else")
    with pytest.raises(IndexFileError, match=r"text\.index"):
        load_index(tmp_path / "text.index")


def test_cache_that_can_not_be_written(folder, tmp_path, monkeypatch):
    """A file stands where the cache should be, so that not even root can write there."""
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "occupied"))
    images = from_folder(folder)
    with pytest.warns(UserWarning, match="LOOKALIKE_CACHE"):
        vectors = Pixels().extract(images)
    assert np.isfinite(vectors).all()


def mirror_with(tmp_path, monkeypatch, members, checksum=None):
    """A mirror whose LFW archive holds ``members``: name → content."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with tarfile.open(mirror / "lfw-mini.tar", "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    data = (mirror / "lfw-mini.tar").read_bytes()
    entry = {"sha256": checksum or hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (mirror / "manifest.json").write_text(json.dumps({"lfw-mini.tar": entry}))
    monkeypatch.setenv("LOOKALIKE_MIRROR", str(mirror))

    def offline(*_):
        raise download.DownloadError("no network in unit tests")

    monkeypatch.setattr(download, "open_url", offline)


def test_mirror_archive_with_a_wrong_checksum(tmp_path, own_cache, monkeypatch):
    mirror_with(tmp_path, monkeypatch, {"lfw/A/A_0001.jpg": b"x"}, checksum="0" * 64)
    with pytest.raises(download.DownloadError, match=r"lfw-mini\.tar has the wrong checksum(.|\n)*LOOKALIKE_MIRROR"):
        download.fetch("lfw")


@pytest.mark.parametrize("name", ["../outside.jpg", "lfw/../../outside.jpg", "/tmp/outside.jpg"])
def test_archive_that_leaves_its_folder(tmp_path, own_cache, monkeypatch, name):
    mirror_with(tmp_path, monkeypatch, {"lfw/A/A_0001.jpg": b"x", name: b"y"})
    with pytest.raises(download.UnsafeArchive, match="outside"):
        download.fetch("lfw")
    assert not list(tmp_path.rglob("outside.jpg"))
    assert not list(own_cache.rglob("A_0001.jpg"))


def test_disk_that_fills_up(own_cache):
    """What was stored before stays, the error says what to do, and the next run goes on from there."""
    with store.VectorStore("d", 256) as kept:
        kept.put([b"first"], np.ones((1, 256), np.float32))
        kept._database.execute("PRAGMA max_page_count = 4")
        with pytest.raises(store.VectorStoreError, match=r"full(.|\n)*LOOKALIKE_CACHE"):
            kept.put([b"%d" % i for i in range(100)], np.ones((100, 256), np.float32))
    with store.VectorStore("d", 256) as kept:
        assert len(kept) == 1 and np.isfinite(kept.get([b"first"])).all()


def test_damaged_vector_store(own_cache):
    path = own_cache / "vectors" / "d.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(store.VectorStoreError, match=r"d\.sqlite is damaged(.|\n)*Move it"):
        store.VectorStore("d", 256)
