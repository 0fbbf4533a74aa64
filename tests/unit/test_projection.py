"""Principal axes and whitening: by hand, against scikit-learn, on disk, and as an extractor."""

import struct

import numpy as np
import pytest
from sklearn.decomposition import PCA

from helpers.features import projection
from helpers.features.composite import Projected, with_shipped_projection
from helpers.features.projection import Projection
from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.lessons import compression
from helpers.vectors import l2_normalize


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(0)
    return (random.normal(size=(200, 12)) * np.linspace(5, 0.1, 12) + 3).astype(np.float32)


def test_by_hand():
    """Points on a cross, whose long arm is the first axis."""
    learned = projection.learn(np.array([[6.0, 2], [-2, 2], [2, 3], [2, 1]]), 2, "a cross")
    assert learned.mean.tolist() == [2, 2] and np.abs(learned.axes) == pytest.approx(np.eye(2))
    assert learned.deviations == pytest.approx(np.sqrt([32 / 3, 2 / 3]))
    # After whitening, the ends of both arms have the same distance from the center.
    assert np.abs(learned(np.array([[6.0, 3]]))) == pytest.approx(np.sqrt([[0.5, 0.5]]))
    assert np.abs(learned.head(2, 0)(np.array([[6.0, 3]]))) == pytest.approx(np.array([[4, 1]]) / 17**0.5)


@pytest.mark.parametrize("whiten", [False, True])
def test_against_scikit_learn(vectors, whiten):
    found = projection.learn(vectors, 5, "noise", float(whiten))(vectors)
    expected = l2_normalize(PCA(5, whiten=whiten, svd_solver="full").fit_transform(vectors.astype(np.float64)))
    signs = np.sign((found * expected).sum(axis=0))
    assert np.allclose(found, expected * signs, atol=1e-4)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(200), abs=1e-5)


def test_head_keeps_the_first_axes(vectors):
    learned = projection.learn(vectors, 8, "noise", 0.5)
    again = projection.learn(vectors, 3, "noise", 1.0)
    assert np.allclose(learned.head(3, 1.0)(vectors), again(vectors), atol=1e-5)
    assert learned.head(3).whitening == 0.5 and learned.head(3).learned_from == "noise"
    assert learned.head(3).digest != learned.digest != learned.head(8, 1).digest


def test_rows_of_nan_stay_nan(vectors):
    queries = vectors[:3].copy()
    queries[1] = np.nan
    assert np.isnan(projection.learn(vectors, 4, "noise")(queries)).all(axis=1).tolist() == [False, True, False]


def test_bad_input_is_refused(vectors):
    for count, dim in ((200, 13), (5, 5), (200, 0)):
        with pytest.raises(ValueError, match="dim must be between 1 and"):
            projection.learn(vectors[:count], dim, "noise")
    with pytest.raises(ValueError, match="NaN"):
        projection.learn(np.where(vectors > 9, np.nan, vectors), 3, "noise")
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        projection.learn(vectors, 3, "noise", 2)
    with pytest.raises(ValueError, match="takes vectors"):
        projection.learn(vectors, 3, "noise")(vectors[:, :5])
    with pytest.raises(ValueError, match="between 1 and 3"):
        projection.learn(vectors, 3, "noise").head(4)


def test_an_axis_without_variance():
    flat = np.zeros((50, 3))
    flat[:, 0] = np.linspace(-1, 1, 50)
    assert np.isfinite(projection.learn(flat, 3, "a line")(flat)).all()


def test_saved_and_loaded(vectors, tmp_path):
    learned = projection.learn(vectors, 6, "noise", 0.25)
    loaded = Projection.load(learned.save(tmp_path / "new" / "noise.npz"))
    assert (loaded.dim, loaded.whitening, loaded.learned_from) == (6, 0.25, "noise")
    assert np.abs(loaded(vectors) - learned(vectors)).max() < 1e-3
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["noise.npz"]


@pytest.mark.parametrize("content", [b"", b"no npz", "cut", "changed"])
def test_a_damaged_file_is_named(content, tmp_path, vectors):
    path = projection.learn(vectors, 6, "noise").save(tmp_path / "noise.npz")
    whole = path.read_bytes()
    # The first byte of a compressed array has an invalid kind of block.
    start = 30 + sum(struct.unpack("<HH", whole[26:30]))
    changes = {"cut": whole[:-200], "changed": whole[:start] + b"\xff" + whole[start + 1 :]}
    path.write_bytes(changes.get(content, content))
    with pytest.raises(projection.ProjectionFileError, match="noise.npz is not a projection"):
        Projection.load(path)
    with pytest.raises(FileNotFoundError):
        Projection.load(tmp_path / "none.npz")


# ---- as an extractor -------------------------------------------------------------------------------------


def test_a_projected_extractor(own_cache):
    photos, of = samples.photos().subset(range(0, 120, 4)), open_extractor("hsv-histogram")
    learned = projection.learn(of.extract(samples.photos().subset(range(120, 240))), 8, "other photographs")
    each = Projected(of, learned)
    assert (each.name, each.dim) == ("hsv-histogram-pcaw8", 8)
    found = each.extract(photos, progress=False)
    assert np.allclose(found, learned(of.extract(photos, progress=False)))
    assert np.allclose(found[:2], each.extract_arrays([read(path) for path in photos.paths[:2]]), atol=1e-5)
    assert Projected(of, learned.head(8, 0)).name == "hsv-histogram-pca8"
    assert len({each.fingerprint, of.fingerprint, Projected(of, learned.head(7)).fingerprint}) == 3
    assert each.origin["projection learned from"] == "other photographs"
    with pytest.raises(ValueError, match="the projection expects"):
        Projected(open_extractor("gray-histogram"), learned)


def read(path):
    from helpers.images.reading import read_image

    return read_image(path)


def test_the_shipped_projection(resnet50):
    extractor = open_extractor("resnet50-gem-pcaw256")
    assert (extractor.name, extractor.dim) == ("resnet50-gem-pcaw256", 256)
    assert extractor.projection.learned_from == "imagenet-one-per-class"
    assert np.allclose(extractor.projection.axes.T @ extractor.projection.axes, np.eye(256), atol=2e-3)
    found = extractor.extract(samples.photos().subset([0, 100]), progress=False)
    assert found.shape == (2, 256) and np.linalg.norm(found, axis=1) == pytest.approx([1, 1], abs=1e-5)
    with pytest.raises(
        KeyError, match="there is no projection for 'pixels', only for: efficientnet-lite0-gem, resnet50-gem"
    ):
        with_shipped_projection(open_extractor("pixels"), 64)
    with pytest.raises(ValueError, match="between 1 and 512"):
        with_shipped_projection(extractor.of, 513)


# ---- compression ----------------------------------------------------------------------------------------


def test_eight_bits_by_hand():
    codes, scales = compression.to_int8(np.array([[1.27, -0.5, 0.0], [0, 0, 0]]))
    assert codes.tolist() == [[127, -50, 0], [0, 0, 0]] and codes.dtype == np.int8
    assert scales == pytest.approx([0.01, 1])


def test_compression_changes_the_direction_little(vectors):
    for compressed, bound in ((compression.to_int8(vectors)[0], 1e-4), (compression.to_float16(vectors), 1e-6)):
        cosine = (l2_normalize(vectors) * l2_normalize(compressed.astype(np.float32))).sum(axis=1)
        assert (1 - cosine).max() < bound


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="does not fit into float16"):
        compression.to_float16(np.array([[1e5]]))
    with pytest.raises(ValueError, match="row 1 contains NaN"):
        compression.to_int8(np.array([[1.0], [np.nan]]))
