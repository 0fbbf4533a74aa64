"""Extractors, their registry and the store: caching by content and settings, interruptions, unreadable files."""

import ast
import graphlib
import shutil
import time

import numpy as np
import pytest

from helpers import features, paths
from helpers.features import file_hashes, registry, store
from helpers.features.color_shape import ColorHistogram, Pixels
from helpers.features.composite import Concatenated
from helpers.features.extractor import FeatureExtractor
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.images.imageset import ImageSet, concatenate
from helpers.images.reading import UnreadableImage, UnreadableImageWarning, read_image, resize

FEATURES = paths.ROOT / "helpers" / "features"


class Counting(Pixels):
    """Pixels that count the computed images and are interrupted after ``limit`` images."""

    def __init__(self, limit=10_000, **settings):
        super().__init__(**settings)
        self.count, self.limit, self.batch_size = 0, limit, 8

    def compute(self, pixels):
        self.count += len(pixels)
        if self.count > self.limit:
            raise KeyboardInterrupt
        return super().compute(pixels)


@pytest.fixture
def photos():
    return samples.photos().subset(range(40))


def test_a_second_call_computes_nothing(own_cache, photos):
    first = Counting()
    vectors = first.extract(photos)
    second = Counting()
    assert np.array_equal(second.extract(photos), vectors)
    assert (first.count, second.count) == (40, 0)


def test_a_copy_under_another_name_is_in_the_store(own_cache, photos, tmp_path):
    Counting().extract(photos)
    shutil.copy(photos.paths[3], tmp_path / "renamed.jpg")
    again = Counting()
    both = concatenate("both", [from_folder(tmp_path), photos])
    vectors = again.extract(both)
    assert again.count == 0 and np.array_equal(vectors[0], vectors[4])


def test_settings_change_the_fingerprint(own_cache, photos):
    assert Pixels().fingerprint == Pixels().fingerprint
    changed = Pixels()
    changed.resize_rule = "crop"
    prints = {Pixels().fingerprint, Pixels(8).fingerprint, changed.fingerprint, ColorHistogram().fingerprint}
    assert len(prints) == 4
    Counting().extract(photos)
    other = Counting(size=8)
    assert other.extract(photos).shape == (40, 64) and other.count == 40


def test_an_interrupted_call_continues(own_cache, photos):
    with pytest.raises(KeyboardInterrupt):
        Counting(limit=20).extract(photos)
    again = Counting()
    vectors = again.extract(photos)
    assert again.count == 24, "two batches of eight were stored before the stop"
    assert np.array_equal(vectors, Pixels().extract(photos, cache=False))


@pytest.mark.parametrize("make", [Pixels, ColorHistogram])
def test_files_arrays_and_cache_give_the_same_vectors(own_cache, photos, make):
    cached = make().extract(photos)
    assert cached.dtype == np.float32 and cached.shape == (40, make().dim)
    assert np.allclose(np.linalg.norm(cached, axis=1), 1, atol=1e-5)
    assert np.array_equal(cached, make().extract(photos, cache=False))
    assert np.allclose(cached, make().extract_arrays([read_image(path) for path in photos.paths]), atol=1e-6)


def test_broken_images_are_nan_after_one_warning(own_cache, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"oh")
    images = concatenate("some broken", [photos, from_folder(tmp_path)])
    with pytest.warns(UnreadableImageWarning, match=r"1 of 41(.|\n)*broken\.jpg") as caught:
        vectors = Pixels().extract(images)
    assert len(caught) == 1
    assert np.isnan(vectors[40]).all() and np.isfinite(vectors[:40]).all()
    # The failure is not stored: once repaired, the file is read.
    (tmp_path / "broken.jpg").write_bytes(photos.paths[0].read_bytes())
    assert np.array_equal(Pixels().extract(images)[40], vectors[0])
    (tmp_path / "broken.jpg").write_bytes(b"oh again")
    with pytest.raises(UnreadableImage, match=r"broken\.jpg"):
        Pixels().extract(images, strict=True)


@pytest.mark.parametrize("cache", [True, False])
def test_copies_of_a_broken_image_are_listed_too(own_cache, photos, tmp_path, cache):
    """Three empty files have equal content; the warning lists all of them."""
    for name in ("one.jpg", "two.jpg", "three.jpg"):
        (tmp_path / name).write_bytes(b"")
    images = concatenate("some empty", [photos, from_folder(tmp_path)])
    with pytest.warns(UnreadableImageWarning) as caught:
        vectors = Pixels().extract(images, cache=cache)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "3 of 43" in message and all(name in message for name in ("one.jpg", "two.jpg", "three.jpg"))
    assert np.isnan(vectors).any(axis=1).tolist() == [False] * 40 + [True] * 3


def test_copies_are_computed_once(own_cache, photos):
    twice = concatenate("twice", [photos, photos])
    counting = Counting()
    vectors = counting.extract(twice)
    assert counting.count == 40 and np.array_equal(vectors[:40], vectors[40:])


def test_missing_files_are_listed(own_cache, tmp_path):
    images = ImageSet("missing", (tmp_path / "a.jpg", tmp_path / "b.jpg"), [-1, -1], ())
    with pytest.warns(UnreadableImageWarning, match=r"2 of 2(.|\n)*a\.jpg does not exist(.|\n)*b\.jpg"):
        assert np.isnan(Pixels().extract(images)).all()


@pytest.mark.parametrize("make", [Pixels, ColorHistogram])
def test_vectors_do_not_depend_on_the_batch_size(own_cache, photos, make):
    small, large = make(), make()
    small.batch_size, large.batch_size = 3, 64
    assert small.fingerprint == large.fingerprint
    assert np.allclose(small.extract(photos, cache=False), large.extract(photos, cache=False), atol=1e-6)


def test_vectors_of_another_shape_are_refused(own_cache, photos):
    wrong = Pixels()
    wrong.dim = 7
    with pytest.raises(ValueError, match=r"pixels returned vectors of shape .*expected \(32, 7\)"):
        wrong.extract(photos)


def test_a_flat_image_has_a_defined_vector(own_cache):
    flat = Pixels().extract_arrays([np.full((30, 20, 3), 77, np.uint8)])
    assert (flat == 0).all()
    assert np.isfinite(ColorHistogram().extract_arrays([np.zeros((5, 5, 3), np.uint8)])).all()


def test_an_empty_set(own_cache):
    empty = ImageSet("empty", (), np.array([], np.int64), ())
    assert Pixels().extract(empty).shape == (0, 256)
    assert Pixels().extract_arrays([]).shape == (0, 256)


def test_known_histogram():
    """A half red, half blue image fills two bins, each with the square root of 0.5."""
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, :5], image[:, 5:] = (255, 0, 0), (0, 0, 255)
    extractor = ColorHistogram()
    extractor.size = 10
    vector = extractor.extract_arrays([image])[0]
    assert np.sort(vector)[-2:] == pytest.approx([0.5**0.5] * 2)
    assert np.count_nonzero(vector) == 2


# ---- the public hooks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["squash", "crop", "pad"])
def test_preprocess_follows_the_resize_rule(photos, rule):
    extractor = Pixels()
    extractor.resize_rule = rule
    image = read_image(photos.paths[0])
    found = extractor.preprocess(image)
    assert found.dtype == np.uint8 and np.array_equal(found, resize(image, 16, rule))


@pytest.mark.parametrize("make", [Pixels, ColorHistogram, lambda: Concatenated([Pixels(), ColorHistogram()])])
def test_embed_equals_extraction(own_cache, photos, make):
    extractor = make()
    images = [resize(read_image(path), extractor.size) for path in photos.paths]
    batch = np.stack([extractor.preprocess(image) for image in images])
    assert np.allclose(extractor.embed(batch), extractor.extract_arrays(images), atol=1e-7)
    with pytest.raises(ValueError, match=r"expected \(3, 7\)"):
        wrong = Pixels()
        wrong.dim = 7
        wrong.embed(np.zeros((3, 16, 16, 3), np.uint8))


def test_iter_batches_gives_rows_and_vectors_in_order(own_cache, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"oh")
    extractor = Counting()
    files = [*photos.paths[:10], tmp_path / "broken.jpg", *photos.paths[10:20]]
    failures = []
    batches = list(extractor.iter_batches(files, failures=failures))
    assert [rows.tolist() for rows, _ in batches] == [
        list(range(8)), [8, 9, 11, 12, 13, 14, 15], [16, 17, 18, 19, 20],
    ]  # fmt: skip
    vectors = np.concatenate([vectors for _, vectors in batches])
    assert np.array_equal(vectors, Pixels().extract(photos, cache=False)[:20])
    assert [str(one) for one in failures] == [f"{tmp_path / 'broken.jpg'} is not an image that can be read."]
    assert extractor.computed == 20 and extractor.seconds > 0
    with pytest.warns(UnreadableImageWarning, match=r"1 of 21(.|\n)*broken\.jpg"):
        list(extractor.iter_batches(files))
    with pytest.raises(UnreadableImage, match=r"broken\.jpg"):
        list(extractor.iter_batches(files, strict=True))


def test_a_wrapper_needs_the_public_methods_only(own_cache, photos):
    """The wrapper has no access to anything else of the wrapped extractor."""

    class Shifted(FeatureExtractor):
        name, settings, weights, normalize = "shifted", {}, "none", False

        def __init__(self, of):
            self.embed_wrapped, self.prepare, self.preprocess = of.embed, of.prepare, of.preprocess
            self.dim, self.size = of.dim, of.size

        def compute(self, pixels):
            return self.embed_wrapped(pixels) + 1

    expected = Pixels().extract(photos) + 1
    assert np.array_equal(Shifted(Pixels()).extract(photos), expected)
    assert np.array_equal(Shifted(Pixels()).extract(photos, cache=False), expected)


def test_a_second_call_reads_no_file(own_cache, photos, tmp_path, monkeypatch):
    expected = Pixels().extract(photos)
    later = time.time_ns() + 10**11
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: later)
    Pixels().extract(photos)
    read = []
    monkeypatch.setattr(file_hashes, "content_hash", read.append)
    assert np.array_equal(Pixels().extract(photos), expected) and read == []


# ---- the registry ---------------------------------------------------------------------------------------


def test_names_of_the_registry():
    assert {"pixels", "hsv-histogram", "resnet50", "resnet152", "vgg16", "efficientnetv2l"} <= set(registry.names())
    with pytest.raises(KeyError, match="no extractor is called 'alexnet'.*resnet50"):
        registry.open_extractor("alexnet")


def test_the_package_exports_public_names():
    assert all(getattr(features, name).__name__ == name for name in features.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = features.nothing


def test_every_extractor_opens_under_its_name(resnet50):
    """Names are case-insensitive; settings are passed to the extractor."""
    for name in ("pixels", "Lab-Histogram", "resnet50-gem", "sift-vlad", "resnet50-gem-pcaw16"):
        assert registry.open_extractor(name).name == name.lower()
    assert registry.open_extractor("pixels", size=8).dim == 64
    assert registry.open_extractor("resnet50-gem-pcaw16", whitening=0).projection.whitening == 0


def test_the_registry_lists_every_module_and_projection():
    tables = {path.stem for path in FEATURES.glob("*.py") if "\nEXTRACTORS = " in path.read_text(encoding="utf-8")}
    assert set(registry.MODULES) == tables
    assert {path.stem for path in (paths.data_dir() / "projections").glob("*.npz")} == set(registry.PROJECTED)


def test_modules_of_features_import_each_other_in_one_direction():
    """Also inside functions."""
    needs = {
        path.stem: {
            name.name if node.module == "helpers.features" else node.module.rpartition(".")[2]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers.features")
            for name in node.names
        }
        for path in FEATURES.glob("*.py")
    }
    assert "extractor" in needs["composite"] and "composite" in needs["registry"]
    tuple(graphlib.TopologicalSorter(needs).static_order())


def test_no_module_of_features_uses_private_names_of_other_objects():
    for path in FEATURES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                assert ast.unparse(node.value) in ("self", "cls", "super()"), f"{path.name}: {ast.unparse(node)}"


def test_resnet50(resnet50, photos):
    few = photos.subset(range(8))
    vectors = resnet50.extract(few, cache=False)
    assert vectors.shape == (8, 2048) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    other = registry.open_extractor("resnet50", batch_size=3).extract(few, cache=False)
    assert np.abs(vectors - other).max() < 1e-5
    assert (vectors @ vectors.T).max(where=~np.eye(8, dtype=bool), initial=-1) < 0.99


# ---- the store ------------------------------------------------------------------------------------------


def test_vectors_are_read_in_the_given_order(own_cache):
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    with store.VectorStore("d", 4) as kept:
        kept.put([b"a", b"b", b"c"], vectors)
        found = kept.get([b"c", b"unknown", b"a", b"c"])
        assert np.array_equal(found[[0, 2, 3]], vectors[[2, 0, 2]]) and np.isnan(found[1]).all()
        assert kept.known([b"a", b"x"]) == {b"a"}
    with pytest.raises(store.VectorStoreError, match="vectors of 4 numbers, not 5"):
        store.VectorStore("d", 5)


def test_arrays_are_cached_on_request(own_cache, photos):
    arrays = [read_image(path) for path in photos.paths[:20]]
    expected = Counting().extract_arrays(arrays)
    again = Counting()
    assert np.array_equal(again.extract_arrays(arrays), expected) and again.count == 20, "not cached"
    # Interrupted in the second batch of eight: the first one is stored.
    with pytest.raises(KeyboardInterrupt):
        Counting(limit=10).extract_arrays(arrays, cache=True)
    rest = Counting()
    assert np.array_equal(rest.extract_arrays(arrays, cache=True), expected) and rest.count == 12
    last = Counting()
    backwards = [*arrays[::-1], arrays[3]]
    assert np.array_equal(last.extract_arrays(backwards, cache=True)[:20], expected[::-1]) and last.count == 0
    # Other pixels, other settings and the file of the same image have other keys.
    arrays[0] = 255 - arrays[0]
    changed = last.extract_arrays(arrays, cache=True)
    assert last.count == 1 and not np.allclose(changed[0], expected[0], atol=1e-3)
    assert np.array_equal(changed[1:], expected[1:])
    last.extract(photos.subset([1]))
    assert last.count == 2
    other = Counting(size=8)
    assert np.array_equal(other.extract_arrays(arrays, cache=True), Counting(size=8).extract_arrays(arrays))
    assert other.count == 20
    assert Counting().extract_arrays([], cache=True).shape == (0, last.dim)


def test_concatenated_arrays_are_cached_by_the_parts(own_cache, photos):
    arrays = [read_image(path) for path in photos.paths[:5]]
    part = Counting()
    concatenated = Concatenated([part, ColorHistogram()])
    kept = concatenated.extract_arrays(arrays, cache=True)
    assert np.allclose(concatenated.extract_arrays(arrays, cache=True), kept, atol=1e-6) and part.count == 5
    assert np.allclose(concatenated.extract_arrays(arrays), kept, atol=1e-6) and part.count == 10
