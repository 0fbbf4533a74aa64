"""Feature maps on disk: precision, reuse, interruptions and errors."""

import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from helpers import paths
from helpers.features.feature_maps import FeatureMapError, feature_maps, vectors
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.images.imageset import ImageSet
from helpers.images.reading import UnreadableImage
from helpers.networks import compiled, transfer

ROW = 4 * 4 * 8 * 2  # bytes of one image's map in the small network


def small():
    """A network of two layers, split between them, after ResNet's preprocessing."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3))
    middle = keras.layers.Conv2D(8, 4, strides=4, activation="relu", name="frozen")(pixels)
    places = keras.layers.Activation("relu")(middle)
    vector = keras.layers.Dense(6, name="learns")(keras.layers.Flatten()(places))
    whole = keras.Model(pixels, vector)
    trunk, tail = keras.Model(pixels, middle), keras.Model(middle, vector)
    return transfer.SplitNetwork("resnet50", 16, whole, trunk, tail, keras.Model(middle, places))


@pytest.fixture
def photos():
    return samples.photos().subset(range(0, 150, 12))


def files(ending=".f16"):
    return sorted((paths.cache_dir() / "maps").glob(f"*{ending}"))


def compute(images, split, **settings):
    return feature_maps(images, split, progress=False, **settings)


# ---- precision ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(resnet50):
    """ResNet50 with ImageNet's weights, images, and their vectors, computed before the cache is moved."""
    images = samples.with_distractors().subset([0, 60, 120, 200, 300, -1])
    return transfer.split_network("resnet50"), images, resnet50.extract(images, progress=False)


@pytest.mark.slow
def test_precision_of_float16(real, own_cache):
    split, images, expected = real
    maps = compute(images, split)
    assert maps.dtype == np.float16 and maps.shape == (6, 14, 14, 1024)
    assert files()[0].stat().st_size == 6 * 401_408, "401 kB an image"
    found = vectors(split.tail, maps)
    assert np.abs(1 - (found * expected).sum(axis=1)).max() < 1e-3
    # The scores of a ranking; measured: 1e-5.
    assert np.abs(found @ found.T - expected @ expected.T).max() < 1e-4
    assert np.linalg.norm(found, axis=1) == pytest.approx([1] * 6, abs=1e-5)


def test_row_i_is_image_i(own_cache, photos):
    split = small()
    maps = compute(photos, split, batch_size=4)
    turned = compute(photos.subset(range(len(photos))[::-1]), split, batch_size=5)
    assert np.allclose(maps, turned[::-1], rtol=1e-3, atol=1e-3) and not np.allclose(maps, turned, atol=1)
    assert len(files()) == 2


# ---- reuse and interruptions ------------------------------------------------------------------------------


def test_a_second_call_computes_nothing(own_cache, photos):
    maps = compute(photos, small())
    assert isinstance(maps, np.memmap) and maps.shape == (13, 4, 4, 8)
    with pytest.raises(ValueError, match="read-only"):
        maps[0] = 0
    (file,) = files()
    marked = bytes(ROW) + file.read_bytes()[ROW:]
    file.write_bytes(marked)
    assert compute(photos, small()).tobytes() == marked, "not computed again"
    assert not files(".part")


def test_an_interrupted_call_continues(own_cache, photos):
    fresh = np.array(compute(photos, small()))
    (file,) = files()
    # Interrupted in the sixth image; the first one is marked, to check that it is not computed again.
    mark = np.full((4, 4, 8), 7, np.float16)
    file.with_suffix(".part").write_bytes(mark.tobytes() + fresh[1:5].tobytes() + fresh[5].tobytes()[: ROW // 3])
    file.unlink()
    again = compute(photos, small(), batch_size=3)
    assert files() == [file] and not files(".part")
    assert (again[0] == 7).all() and np.array_equal(again[1:5], fresh[1:5])
    assert np.allclose(again[5:], fresh[5:], rtol=2e-3, atol=1e-3)


def test_an_image_of_an_earlier_set_is_not_computed_again(own_cache, photos):
    first = np.array(compute(photos.subset([0, 3, 6]), small()))
    (file,) = files()
    marked = np.full((4, 4, 8), 7, np.float16)
    file.write_bytes(marked.tobytes() + file.read_bytes()[ROW:])
    mixed = compute(photos.subset([5, 6, 0, 1]), small())
    assert np.array_equal(mixed[1], first[2]) and (mixed[2] == 7).all(), "copied to the right rows"
    alone = [compute(photos.subset([row]), small())[0] for row in (5, 1)]
    assert np.array_equal(mixed[0], alone[0]) and np.array_equal(mixed[3], alone[1])
    # Not from another resize rule, another trunk, or a damaged file.
    assert not (compute(photos.subset([0]), small(), resize="pad") == 7).all()
    other = small()
    other.trunk.get_layer("frozen").kernel.assign_add(np.full((4, 4, 3, 8), 0.01, np.float32))
    assert not (compute(photos.subset([0]), other) == 7).all()
    for path in files():
        path.write_bytes(path.read_bytes() + b" ")
    assert not (compute(photos.subset([0, 1, 2]), small()) == 7).any()


def test_a_damaged_or_missing_description(own_cache, photos):
    maps = np.array(compute(photos, small()))
    (description,) = files(".json")
    description.write_text(description.read_text()[:-3])
    again = compute(photos.subset([0]), small())[0]
    assert np.allclose(again, maps[0], rtol=2e-3, atol=1e-3), "computed again"
    description.unlink()
    assert np.array_equal(compute(photos, small()), maps)


def test_interrupted_before_the_last_step(own_cache, photos):
    fresh = np.array(compute(photos, small()))
    (file,) = files()
    file.rename(file.with_suffix(".part"))
    assert np.array_equal(compute(photos, small()), fresh)


def test_changed_images_and_settings_have_other_files(own_cache, photos, tmp_path):
    for number, path in enumerate(photos.paths):
        shutil.copy(path, tmp_path / f"{number:02}{path.suffix}")
    images = from_folder(tmp_path)
    split = small()
    before = np.array(compute(images, split))

    Image.new("RGB", (40, 30), "orange").save(images.paths[0])
    changed = compute(images, split)
    assert len(files()) == 2
    assert np.array_equal(changed[1:], before[1:]) and not np.allclose(changed[0], before[0], atol=1)

    compute(images, split, resize="pad")
    assert len(files()) == 3

    split.trunk.get_layer("frozen").kernel.assign_add(np.full((4, 4, 3, 8), 0.01, np.float32))
    trained = compute(images, split)
    assert len(files()) == 4 and not np.allclose(trained, changed, atol=1)


def test_the_tail_does_not_change_the_maps(own_cache, photos):
    split = small()
    compute(photos, split)
    split.tail.get_layer("learns").kernel.assign_add(np.ones((128, 6), np.float32))
    compute(photos, split)
    assert len(files()) == 1
    # Commas and slashes in names are allowed.
    assert compute(photos.subset(range(13), "a/b, the rest"), split).shape == (13, 4, 4, 8)
    assert len(files()) == 2 and files()[0].name.startswith("resnet50-a-b-")


def test_an_empty_set(own_cache):
    empty = ImageSet("empty", (), np.array([], np.int64), ())
    assert compute(empty, small()).shape == (0, 4, 4, 8)
    assert vectors(small().tail, compute(empty, small())).shape == (0, 6)


# ---- errors -----------------------------------------------------------------------------------------------


def test_a_value_beyond_float16(own_cache, tmp_path):
    """Only the white image has too large values; the map of the black one is kept."""
    for name, color in (("1-black.png", "black"), ("2-white.png", "white")):
        Image.new("RGB", (20, 20), color).save(tmp_path / name)
    bright = small()
    bright.trunk.set_weights([np.full((4, 4, 3, 8), 1e3, np.float32), np.zeros(8, np.float32)])
    with pytest.raises(FeatureMapError, match=r"2-white\.png does not fit into float16 \(±65504\)"):
        compute(from_folder(tmp_path), bright, batch_size=1)
    assert not files() and files(".part")[0].stat().st_size == ROW
    with pytest.raises(FeatureMapError, match="2-white"):
        compute(from_folder(tmp_path), bright, batch_size=2)


def test_a_full_disk(own_cache, photos):
    """A limit on the size of files interrupts writing, as a full disk does."""
    resource = pytest.importorskip("resource", reason="NOT TESTED: this system can't limit the size of files")
    fresh = np.array(compute(photos, small()))
    (file,) = files()
    file.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * ROW + 100, limits[1]))
    try:
        with pytest.raises(FeatureMapError) as error:
            compute(photos, small(), batch_size=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    part = file.with_suffix(".part")
    assert str(part) in str(error.value) and f"needs {13 * ROW:,} bytes" in str(error.value)
    assert "LOOKALIKE_CACHE" in str(error.value) and isinstance(error.value.__cause__, OSError)
    assert 4 * ROW <= part.stat().st_size < 13 * ROW and not file.exists()
    assert np.allclose(compute(photos, small()), fresh, rtol=2e-3, atol=1e-3), "continues with free space"


def test_a_folder_that_is_not_writable(tmp_path, monkeypatch, photos):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "file"))
    with pytest.raises(FeatureMapError, match=r"file/maps/.*\.part can't be written"):
        compute(photos, small())


def test_an_unreadable_image_is_named(own_cache, photos, tmp_path):
    shutil.copy(photos.paths[0], tmp_path / "a.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"oh")
    with pytest.raises(UnreadableImage, match=r"broken\.jpg"):
        compute(from_folder(tmp_path), small())
    missing = ImageSet("missing", (tmp_path / "a.jpg", tmp_path / "missing.jpg"), [-1, -1], ())
    with pytest.raises(UnreadableImage, match=r"missing\.jpg does not exist"):
        compute(missing, small())
    assert not files()


def test_a_file_of_another_length_is_damaged(own_cache, photos):
    compute(photos, small())
    (file,) = files()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FeatureMapError, match=rf"{file.name} is damaged.* not {13 * ROW:,}\. Move it"):
        compute(photos, small())


# ---- vectors --------------------------------------------------------------------------------------------


def test_vectors_of_any_batch_size_and_length():
    tail = small().tail
    maps = np.random.default_rng(0).normal(size=(7, 4, 4, 8)).astype(np.float16)
    maps[3] = 0
    raw = vectors(tail, maps, normalize=False)
    assert raw.dtype == np.float32 and np.allclose(raw, tail(maps.astype(np.float32)), atol=1e-6)
    assert np.allclose(vectors(tail, maps, batch_size=3, normalize=False), raw, atol=1e-6)
    unit = vectors(tail, maps)
    assert np.linalg.norm(unit, axis=1) == pytest.approx([1, 1, 1, 0, 1, 1, 1], abs=1e-5)
    assert np.allclose(unit * np.linalg.norm(raw, axis=1, keepdims=True), raw, atol=1e-5)


def kept():
    return sorted((paths.cache_dir() / "vectors").glob("tail-*.sqlite"))


def test_cached_vectors_equal_computed_ones(own_cache, monkeypatch):
    tail = small().tail
    maps = np.random.default_rng(0).normal(size=(7, 4, 4, 8)).astype(np.float16)
    maps[5] = maps[1]
    expected = vectors(tail, maps, normalize=False)
    assert not kept(), "stored without cache"
    batches = []
    monkeypatch.setattr(tail, "predict_on_batch", lambda part: batches.append(len(part)) or tail(part).numpy())
    assert np.allclose(vectors(tail, maps[:4], batch_size=3, normalize=False, cache=True), expected[:4], atol=1e-6)
    assert batches == [3, 1]
    # Rows that are stored are not computed again, in any subset; equal maps are computed once.
    assert np.allclose(vectors(tail, maps[::-1], normalize=False, cache=True), expected[::-1], atol=1e-6)
    assert batches == [3, 1, 2]
    assert np.allclose(vectors(tail, maps, cache=True), vectors(small().tail, maps), atol=1e-6)
    assert batches == [3, 1, 2] and len(kept()) == 1, "raw vectors are stored"


def test_changed_models_and_maps_have_other_keys(own_cache):
    tail = small().tail
    maps = np.random.default_rng(0).normal(size=(5, 4, 4, 8)).astype(np.float16)
    before = vectors(tail, maps, cache=True)
    tail.get_layer("learns").kernel.assign_add(np.random.default_rng(1).normal(size=(128, 6)))
    after = vectors(tail, maps, cache=True)
    assert np.allclose(after, vectors(tail, maps), atol=1e-6) and not np.allclose(after, before, atol=0.1)
    assert len(kept()) == 2
    maps[2] *= 2
    assert np.allclose(vectors(tail, maps, cache=True), vectors(tail, maps), atol=1e-6)
    wider = maps.astype(np.float32) + np.float32(1e-4)
    assert np.allclose(vectors(tail, wider, cache=True), vectors(tail, wider), atol=1e-6)


def test_an_interrupted_call_keeps_complete_batches(own_cache, monkeypatch):
    tail = small().tail
    maps = np.random.default_rng(0).normal(size=(7, 4, 4, 8)).astype(np.float16)
    real, batches = tail.predict_on_batch, []

    def fails_in_the_third(part):
        batches.append(len(part))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return real(part)

    monkeypatch.setattr(tail, "predict_on_batch", fails_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        vectors(tail, maps, batch_size=2, cache=True)
    assert np.allclose(vectors(tail, maps, batch_size=2, cache=True), vectors(small().tail, maps), atol=1e-6)
    assert batches == [2, 2, 2, 2, 1]


def test_maps_cannot_be_cached_as_vectors(own_cache):
    split = small()
    maps = np.zeros((2, 4, 4, 8), np.float16)
    assert vectors(split.last_maps, maps, normalize=False).shape == (2, 4, 4, 8)
    with pytest.raises(ValueError, match="returns maps .*only vectors"):
        vectors(split.last_maps, maps, normalize=False, cache=True)
    assert vectors(split.tail, maps[:0], cache=True).shape == (0, 6)


def test_a_trunk_is_compiled_once_until_its_weights_change(own_cache, photos, monkeypatch):
    built, real = [], compiled.fastest
    monkeypatch.setattr(compiled, "fastest", lambda *given: built.append(given[1]) or real(*given))
    split = small()
    compute(photos.subset([0]), split)
    compute(photos.subset([1]), split)
    assert built == ["resnet50-trunk"]
    split.trunk.get_layer("frozen").kernel.assign_add(np.full((4, 4, 3, 8), 0.01, np.float32))
    changed = compute(photos.subset([2]), split)
    assert len(built) == 2
    other = small()
    other.trunk.set_weights(split.trunk.get_weights())
    for file in files():
        file.unlink()
    assert np.allclose(compute(photos.subset([2]), other), changed, rtol=2e-3, atol=1e-3) and len(built) == 3
