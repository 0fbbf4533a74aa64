"""Test-time augmentation: the mean over views, stored separately and independent of the batch."""

import numpy as np
import pytest

from helpers.features.color_shape import ColorHistogram, Pixels
from helpers.features.composite import TestTimeAugmentation
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.images.imageset import concatenate
from helpers.images.reading import UnreadableImage, UnreadableImageWarning, read_image, resize


class Counting(Pixels):
    """Pixels that count the computed images."""

    count = 0

    def compute(self, pixels):
        self.count += len(pixels)
        return super().compute(pixels)


@pytest.fixture
def photos():
    return samples.photos().subset(range(0, 240, 12))


def read(images, size, rule="squash"):
    return [resize(read_image(path), size, rule) for path in images.paths]


def mean_one_by_one(extractor, groups_of_views):
    """float32 (n, dim): the vectors of all views of each image, added and normalized."""
    rows = []
    for views in groups_of_views:
        total = np.zeros(extractor.dim)
        for view in views:
            total += extractor.extract_arrays([view])[0]
        rows.append(total / np.linalg.norm(total))
    return np.array(rows, dtype=np.float32)


def test_mirror_is_the_mean_of_two(own_cache, photos):
    expected = mean_one_by_one(Pixels(), [(p, p[:, ::-1].copy()) for p in read(photos, 16)])
    both = TestTimeAugmentation(Pixels())
    assert both.name == "pixels+mirror" and both.dim == 256
    found = [both.extract(photos, cache=False)]
    assert not list(own_cache.rglob("*.sqlite")), "vectors were stored without cache"
    found += [both.extract(photos), both.extract(photos)]
    found.append(both.extract_arrays([read_image(path) for path in photos.paths]))
    for vectors in found:
        assert vectors.dtype == np.float32 and np.allclose(vectors, expected, atol=1e-6)
    assert np.abs(expected - Pixels().extract(photos)).max() > 0.1, "the mirror image changed nothing"


def test_an_image_and_its_mirror_image_have_the_same_vector(photos):
    pixels = read(photos, 16)
    mirrored = [np.ascontiguousarray(p[:, ::-1]) for p in pixels]
    assert np.allclose(
        TestTimeAugmentation(Pixels()).extract_arrays(pixels),
        TestTimeAugmentation(Pixels()).extract_arrays(mirrored),
        atol=1e-6,
    )
    assert not np.allclose(Pixels().extract_arrays(pixels), Pixels().extract_arrays(mirrored), atol=0.1)


@pytest.mark.parametrize("mirror", [True, False])
def test_copies_are_those_of_the_recipe(own_cache, photos, mirror):
    from helpers.images.augmentation import Augmentation, copies

    expected, photos = [], photos.subset(range(5))
    for image in read(photos, 16):
        views = [image, image[:, ::-1].copy()] if mirror else [image]
        # Copy i is the output of epoch i of a layer with this seed for a single image.
        views += [copies(image[None], Augmentation("classic", seed=3, epoch=i))[0, 0] for i in range(2)]
        expected.append(views)
    many = TestTimeAugmentation(Pixels(), mirror=mirror, recipe="classic", copies=2, seed=3)
    assert many.name == ("pixels+mirror+2-classic" if mirror else "pixels+2-classic")
    slow = mean_one_by_one(Pixels(), expected)
    assert np.allclose(many.extract(photos), slow, atol=1e-6)
    assert np.allclose(many.extract_arrays(read(photos, 16)), slow, atol=1e-6)


def test_copies_do_not_depend_on_the_batch(own_cache, photos):
    """Otherwise, vectors would change after an interruption."""
    settings = {"recipe": "classic", "copies": 2}
    together = TestTimeAugmentation(Pixels(), **settings).extract(photos, cache=False)
    small = Pixels()
    small.batch_size = 3
    reverse = photos.subset(range(len(photos))[::-1])
    assert np.allclose(TestTimeAugmentation(small, **settings).extract(reverse, cache=False)[::-1], together, atol=1e-6)
    assert TestTimeAugmentation(small, **settings).fingerprint == TestTimeAugmentation(Pixels(), **settings).fingerprint


def test_views_have_their_own_vectors_in_the_store(own_cache, photos):
    counting = Counting()
    plain = counting.extract(photos)
    mean = TestTimeAugmentation(counting).extract(photos)
    assert counting.count == 2 * len(photos), "one pass for the image, one for its mirror image"
    again = Counting()
    assert np.array_equal(TestTimeAugmentation(again).extract(photos), mean) and np.array_equal(
        again.extract(photos), plain
    )
    assert again.count == 0
    assert not np.allclose(plain, mean, atol=0.05)


def test_settings_change_the_fingerprint():
    extractors = [
        Pixels(),
        TestTimeAugmentation(Pixels()),
        TestTimeAugmentation(Pixels(8)),
        TestTimeAugmentation(ColorHistogram()),
        TestTimeAugmentation(ColorHistogram((8, 8, 2))),
        TestTimeAugmentation(Pixels(), recipe="classic", copies=1),
        TestTimeAugmentation(Pixels(), mirror=False, recipe="classic", copies=1),
        TestTimeAugmentation(Pixels(), recipe="classic", copies=2),
        TestTimeAugmentation(Pixels(), recipe="classic", copies=1, seed=1),
        TestTimeAugmentation(Pixels(), recipe="color-jitter", copies=1),
    ]
    every = [view.fingerprint for views in extractors[1:] for view in views.views[1:]]
    assert len({extractor.fingerprint for extractor in extractors}) == len(extractors)
    # Four extractors of mirror images, four different copies of Pixels(); some occur several times.
    assert len(set(every)) == 4 + 4
    assert TestTimeAugmentation(Pixels(), recipe="classic", copies=1).fingerprint == extractors[5].fingerprint


def test_an_extractor_that_is_changed_after_it_was_wrapped(own_cache, photos):
    """Like a network that is trained further: old vectors must not be returned."""
    inner = Pixels()
    both = TestTimeAugmentation(inner)
    before, name = both.extract(photos), both.fingerprint
    inner.resize_rule = "crop"
    assert both.fingerprint != name
    expected = mean_one_by_one(Pixels(), [(p, p[:, ::-1].copy()) for p in read(photos, 16, "crop")])
    assert np.allclose(both.extract(photos), expected, atol=1e-6)
    assert not np.allclose(both.extract(photos), before, atol=0.05)


def test_without_normalization_lengths_are_kept(photos):
    raw = Pixels()
    raw.normalize = False
    pixels = read(photos, 16)
    alone = [raw.extract_arrays(side) for side in (pixels, [p[:, ::-1].copy() for p in pixels])]
    vectors = TestTimeAugmentation(raw).extract_arrays(pixels)
    assert np.allclose(vectors, (alone[0] + alone[1]) / 2, rtol=1e-5, atol=1e-3)
    assert np.allclose(TestTimeAugmentation(raw).extract(photos, cache=False), vectors, rtol=1e-5, atol=1e-3)
    assert np.linalg.norm(vectors, axis=1).min() > 10


def test_a_flat_image_has_a_defined_vector(own_cache, tmp_path):
    from PIL import Image

    Image.new("RGB", (20, 20), (77, 77, 77)).save(tmp_path / "flat.png")
    assert (TestTimeAugmentation(Pixels()).extract(from_folder(tmp_path)) == 0).all()


def test_broken_images_are_nan_after_one_warning(own_cache, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"oh")
    images = concatenate("some broken", [photos, from_folder(tmp_path)])
    with pytest.warns(UnreadableImageWarning, match=r"1 of 21(.|\n)*broken\.jpg") as caught:
        vectors = TestTimeAugmentation(Pixels()).extract(images)
    assert len(caught) == 1
    assert np.isnan(vectors[20]).all() and np.isfinite(vectors[:20]).all()
    with pytest.raises(UnreadableImage, match=r"broken\.jpg"):
        TestTimeAugmentation(Pixels()).extract(images, strict=True)


def test_the_rate_includes_all_views():
    both = TestTimeAugmentation(Pixels())
    assert both.images_per_second is None
    both.of.computed, both.of.seconds = 200, 10
    assert both.images_per_second is None, "the mirror image's rate is unknown"
    both.views[1].computed, both.views[1].seconds = 100, 10
    # 1/20 s for the image and 1/10 s for its mirror image.
    assert both.images_per_second == pytest.approx(1 / 0.15)


def test_the_rate_is_measured_on_every_view(own_cache):
    both = TestTimeAugmentation(Pixels())
    both.extract(samples.photos().subset(range(120)), cache=False)
    rates = [view.images_per_second for view in both.views]
    assert both.images_per_second == pytest.approx(1 / sum(1 / rate for rate in rates))


def test_origin_of_the_weights(resnet50):
    both = TestTimeAugmentation(resnet50)
    assert (both.name, both.weights, both.dim, both.size) == ("resnet50+mirror", "imagenet", 2048, 224)
    assert both.origin == {**resnet50.origin, "views": 2}
    assert TestTimeAugmentation(Pixels()).origin == {"views": 2} and TestTimeAugmentation(Pixels()).weights == "none"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"mirror": False}, ValueError, "only one view"),
        ({"recipe": "classic"}, ValueError, "give recipe and copies"),
        ({"copies": 2}, ValueError, "give recipe and copies"),
        ({"recipe": "classic", "copies": -1}, ValueError, "give recipe and copies"),
        ({"recipe": "mixup", "copies": 1}, ValueError, "mixup mixes two images"),
        ({"recipe": "blur", "copies": 1}, KeyError, "there are: classic"),
        ({"recipe": "classic", "copies": 1, "seed": -1}, ValueError, "negative"),
    ],
)
def test_bad_input_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        TestTimeAugmentation(Pixels(), **settings)
