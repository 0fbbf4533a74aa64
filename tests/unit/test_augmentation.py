"""Augmentation: the effect of each recipe on real images, inactive at inference, and repeatable."""

import cv2
import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from helpers.features.registry import open_extractor
from helpers.images import att_faces, duplicates, samples
from helpers.images.augmentation import (
    IMAGENET_MEAN,
    RECIPES,
    Augmentation,
    Equalize,
    RandAugment,
    RandomAffine,
    copies,
    siblings,
)
from helpers.images.imageset import ImageSet
from helpers.images.reading import batches

SIDE = 48
PLAIN = [name for name, recipe in RECIPES.items() if not recipe.mixes]
MIXING = [name for name, recipe in RECIPES.items() if recipe.mixes]
#: Each layer of this recipe traces a graph for all operations, which takes seconds per test.
SLOW = {"rand-augment": pytest.mark.slow}


def pace(names):
    return [pytest.param(name, marks=SLOW.get(name, ())) for name in names]


@pytest.fixture(autouse=True)
def seeded():
    """For layers without an `Augmentation`, which would set their seed."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def photos():
    """uint8 (16, 48, 48, 3): photographs and faces."""
    kinds = samples.photos().subset(range(0, 240, 20)), att_faces.load().subset([0, 100, 200, 300])
    return np.concatenate([pixels for images in kinds for _, pixels in batches(images, SIDE)])


def change(layer, pixels, **how):
    """The output images of a layer of any recipe; for recipes that mix, each image is a class."""
    if not layer.recipe.mixes:
        return np.asarray(layer(pixels, **how))
    return np.asarray(layer({"images": pixels, "labels": np.eye(len(pixels))}, **how)["images"])


def grays(n, low, high):
    """float32 (n, 32, 8, 3): n times the same ramp of grays, dark at the top."""
    ramp = np.linspace(low, high, 32, dtype=np.float32)
    return np.broadcast_to(ramp[None, :, None, None], (n, 32, 8, 3))


# ---- all recipes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_images_change_but_not_their_shape_and_range(name, photos):
    layer = Augmentation(name, seed=1)
    result = np.concatenate([change(layer, photos, training=True) for _ in range(6)])
    assert result.shape == (6 * len(photos), SIDE, SIDE, 3) and result.dtype == np.float32
    assert result.min() >= 0 and 200 < result.max() <= 255
    changed = (np.abs(result - np.tile(photos, (6, 1, 1, 1)).astype(np.float32)) > 1).any((1, 2, 3))
    assert changed.mean() > 0.3


@pytest.mark.parametrize("name", pace(RECIPES))
def test_uint8_and_floats_give_the_same(name, photos):
    floats = photos.astype(np.float32)
    from_bytes = change(Augmentation(name, seed=1), photos, training=True)
    assert (from_bytes == change(Augmentation(name, seed=1), floats, training=True)).all()


@pytest.mark.parametrize("name", RECIPES)
def test_off_at_inference(name, photos):
    layer = Augmentation(name)
    for how in ({}, {"training": False}):
        pixels = change(layer, photos, **how)
        assert pixels.dtype == np.float32 and (pixels == photos).all()


@pytest.mark.parametrize("name", PLAIN)
def test_off_in_a_model_except_in_training(name, photos):
    """Keras's layers change the images of ``model(x)``."""
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), Augmentation(name)])
    pixels = photos.astype(np.float32)
    assert (np.asarray(model(pixels)) == pixels).all()
    assert (model.predict_on_batch(pixels) == pixels).all()
    assert (np.asarray(model(pixels, training=True)) != pixels).any()


@pytest.mark.parametrize("name", pace(PLAIN))
def test_an_image_does_not_depend_on_others_in_its_batch(name, photos):
    """The random numbers depend on the position in the batch."""
    others = np.concatenate([photos[:4], 255 - photos[4:]])
    for seed in range(3):
        one, two = (change(Augmentation(name, seed), batch, training=True)[:4] for batch in (photos, others))
        assert np.abs(one - two).max() < 1e-3


@pytest.mark.parametrize("name", pace(PLAIN))
def test_images_of_a_batch_are_changed_independently(name, photos):
    same = np.repeat(photos[3:4], 16, axis=0)
    result = change(Augmentation(name, seed=2), same, training=True)
    assert len(np.unique(result.reshape(16, -1), axis=0)) > (5 if name == "random-erasing" else 10)


@pytest.mark.parametrize("name", pace(RECIPES))
def test_seed_and_epoch_decide_the_random_numbers(name, photos):
    def epoch(layer):
        return np.stack([change(layer, photos, training=True) for _ in range(2)])

    uninterrupted = Augmentation(name, seed=5)
    run = {}
    for number in (0, 1, 3):
        uninterrupted.start_epoch(number)
        run[number] = epoch(uninterrupted)
    assert (epoch(Augmentation(name, seed=5)) == run[0]).all()
    assert (epoch(Augmentation(name, seed=5, epoch=3)) == run[3]).all(), "resumed at epoch 3"
    assert (run[0] != run[1]).any() and (run[0][0] != run[0][1]).any()
    assert (epoch(Augmentation(name, seed=6)) != run[0]).any()


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_resumed_fit_gets_the_images_of_an_uninterrupted_one(photos):
    def losses(first):
        layer = Augmentation("classic", seed=3)
        model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layer, keras.layers.Rescaling(1 / 255)])
        model.compile("sgd", loss=lambda _, pixels: keras.ops.mean(pixels, axis=(1, 2, 3)))
        begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: layer.start_epoch(epoch))
        history = model.fit(
            photos.astype(np.float32), np.zeros(len(photos)), batch_size=8, shuffle=False, verbose=0,
            initial_epoch=first, epochs=4, callbacks=[begin],
        )  # fmt: skip
        return history.history["loss"]

    uninterrupted = losses(0)
    assert len(set(uninterrupted)) == 4
    assert losses(2) == uninterrupted[2:]


def test_in_a_data_pipeline(photos):
    layer = Augmentation("classic", seed=4)
    labels = np.arange(len(photos))

    def epoch(number):
        layer.start_epoch(number)
        batched = tf.data.Dataset.from_tensor_slices((photos, labels)).batch(4)
        return [pixels.numpy() for pixels, _ in batched.map(lambda x, y: (layer(x, training=True), y))]

    first, second, again = np.stack(epoch(0)), np.stack(epoch(1)), np.stack(epoch(0))
    assert first.dtype == np.float32 and (first == again).all() and (first != second).any()
    layer.start_epoch(0)
    by_hand = np.stack([layer(photos[at : at + 4], training=True) for at in range(0, 16, 4)])
    assert np.abs(first - by_hand).max() < 0.01


@pytest.mark.parametrize("name", MIXING)
def test_mixing_in_a_data_pipeline(name, photos):
    layer = Augmentation(name, seed=4)
    batched = tf.data.Dataset.from_tensor_slices({"images": photos, "labels": tf.one_hot(range(16), 16)}).batch(8)
    for result in batched.map(lambda both: layer(both, training=True)):
        assert result["images"].dtype == result["labels"].dtype == tf.float32
        assert np.asarray(result["labels"]).sum(axis=1) == pytest.approx(np.ones(8), abs=1e-6)


def test_a_layer_can_be_saved_in_a_model(tmp_path, photos):
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), Augmentation("rand-augment", seed=3, epoch=2)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0]
    loaded.start_epoch(2)
    assert (loaded.recipe.name, loaded.seed) == ("rand-augment", 3)
    expected = Augmentation("rand-augment", seed=3, epoch=2)(photos, training=True)
    assert (np.asarray(loaded(photos, training=True)) == np.asarray(expected)).all()
    affine = RandomAffine(rotation=40, flip=True)
    assert RandomAffine.from_config(affine.get_config()).settings == affine.settings


# ---- the classic recipe ------------------------------------------------------------------------------


def test_the_classic_ranges():
    drawn = {key: np.asarray(value) for key, value in Augmentation("classic", seed=0).change.draw(4000).items()}
    limits = {"theta": np.deg2rad(40), "down": 0.2, "right": 0.2, "shear": 0.2, "zoom_y": 0.2, "zoom_x": 0.2}
    for key, limit in limits.items():
        change = drawn[key] - key.startswith("zoom")
        assert 0.98 * limit < change.max() <= limit * 1.0001 and -1.0001 * limit <= change.min() < -0.98 * limit, key
        assert abs(change.mean()) < 0.05 * limit
    assert set(np.unique(drawn["mirror"])) == {-1, 1} and 0.46 < (drawn["mirror"] < 0).mean() < 0.54
    correlation = np.corrcoef(np.stack(list(drawn.values()))) - np.eye(7)
    assert np.abs(correlation).max() < 0.07, "drawn independently"


def test_the_matrix_is_that_of_the_classic_generator(photos):
    """Composed here as in ImageDataGenerator, and applied by SciPy, which it used."""
    layer = RandomAffine(rotation=40, shift=0.2, shear=0.2, zoom=0.2, flip=True)
    wide = photos[:6, :36].astype(np.float32)
    height, width = wide.shape[1:3]
    drawn = layer.draw(len(wide))
    result = keras.ops.image.affine_transform(
        wide, layer.matrices(**drawn, height=height, width=width), fill_mode="nearest"
    )
    for row, image in enumerate(wide):
        d = {key: float(value[row]) for key, value in drawn.items()}
        cos, sin = np.cos(d["theta"]), np.sin(d["theta"])
        matrix = (
            np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
            @ np.array([[1, 0, d["down"] * height], [0, 1, d["right"] * width], [0, 0, 1]])
            @ np.array([[1, -np.sin(d["shear"]), 0], [0, np.cos(d["shear"]), 0], [0, 0, 1]])
            @ np.diag([d["zoom_y"], d["zoom_x"], 1])
        )
        center = np.array([[1, 0, (height - 1) / 2], [0, 1, (width - 1) / 2], [0, 0, 1]])
        matrix = center @ matrix @ np.linalg.inv(center)
        expected = np.stack(
            [
                scipy.ndimage.affine_transform(image[..., c], matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest")
                for c in range(3)
            ],
            axis=-1,
        )
        expected = expected[:, ::-1] if d["mirror"] < 0 else expected
        assert np.abs(np.asarray(result[row]) - expected).max() < 0.1


def test_a_bar_is_rotated_by_the_random_angle():
    bar = np.zeros((40, 101, 101, 3), np.float32)
    bar[:, 20:81, 47:54] = 255
    layer = RandomAffine(rotation=40)
    layer.generator.state.assign([7, 0])
    theta = np.rad2deg(np.asarray(layer.draw(40)["theta"]))
    layer.generator.state.assign([7, 0])
    measured = []
    for image in np.asarray(layer(bar, training=True))[..., 0]:
        y, x = np.nonzero(image > 128)
        # From the vertical to the right: an image rotates in the opposite direction of its sampling.
        covariance = np.cov(x, -y)
        measured.append(np.rad2deg(0.5 * np.arctan2(2 * covariance[0, 1], covariance[1, 1] - covariance[0, 0])))
    assert np.abs(np.array(measured) - theta).max() < 0.5
    assert np.abs(theta).max() > 35


def test_no_black_corners(photos):
    """Pixels from outside repeat the border."""
    bright = 100 + photos.astype(np.float32) * 155 / 255
    layer = Augmentation("classic")
    assert min(np.asarray(layer(bright, training=True)).min() for _ in range(5)) > 99.9


def test_without_ranges_it_is_the_identity(photos):
    pixels = photos.astype(np.float32)
    assert np.abs(np.asarray(RandomAffine()(pixels, training=True)) - pixels).max() < 1e-3


def test_one_interpolation_keeps_more_detail_than_five(photos):
    nearest = {"fill_mode": "nearest"}
    five = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal", seed=0),
            keras.layers.RandomRotation(40 / 360, seed=1, **nearest),
            keras.layers.RandomTranslation(0.2, 0.2, seed=2, **nearest),
            keras.layers.RandomShear(0.0, 0.2, seed=3, **nearest),
            keras.layers.RandomZoom(0.2, 0.2, seed=4, **nearest),
        ]
    )

    def detail(pixels):
        return np.square(scipy.ndimage.laplace(np.asarray(pixels).mean(axis=-1), axes=(1, 2))).mean()

    pixels, one = photos.astype(np.float32), Augmentation("classic")
    kept = [np.mean([detail(layer(pixels, training=True)) for _ in range(4)]) / detail(pixels) for layer in (one, five)]
    assert kept[0] > 1.5 * kept[1]


# ---- the other recipes -------------------------------------------------------------------------------


def test_jitter_works_in_both_directions():
    pixels = grays(300, 100, 150)
    result = np.asarray(Augmentation("color-jitter")(pixels, training=True))[:, :, 0].mean(axis=-1)
    contrast = result.std(axis=1) / pixels[0, :, 0, 0].std()
    assert 0.79 < contrast.min() < 0.83 and 1.17 < contrast.max() < 1.21
    shift = result.mean(axis=1) - 125
    assert -52 < shift.min() < -45 and 45 < shift.max() < 52
    red = np.broadcast_to(np.float32([200, 80, 80]), (300, 8, 8, 3))
    color = np.asarray(Augmentation("color-jitter")(red, training=True))[:, 0, 0]
    assert (color[:, 1] > color[:, 2] + 5).any() and (color[:, 2] > color[:, 1] + 5).any(), "hue to either side"


def test_half_of_the_images_get_a_box():
    pixels = np.full((400, 32, 32, 3), 200, np.float32)
    result = np.asarray(Augmentation("random-erasing")(pixels, training=True))
    erased = (result != 200).any(axis=-1)
    share = erased.mean(axis=(1, 2))
    assert 0.42 < (share > 0).mean() < 0.58
    # Rounded to pixels: a box can be a pixel narrower or wider.
    assert share[share > 0].min() < 0.06 and 0.25 < share.max() < 0.33 + 2 / 32
    assert result[erased] == pytest.approx(np.tile(IMAGENET_MEAN, (erased.sum(), 1)), abs=1e-3)
    for mask in erased[share > 0]:
        height, width = np.ptp(np.nonzero(mask), axis=1) + 1
        assert mask.sum() == height * width, "one full rectangle"


def test_mixup_mixes_labels_like_pixels(photos):
    """If each image is a class, the labels are the weights that reconstruct the pixels."""
    result = Augmentation("mixup", seed=2)({"images": photos, "labels": np.eye(16)}, training=True)
    labels, images = np.asarray(result["labels"]), np.asarray(result["images"])
    assert labels.sum(axis=1) == pytest.approx(np.ones(16), abs=1e-6)
    assert ((labels > 0).sum(axis=1) <= 2).all()
    assert np.abs(images - np.einsum("ij,jhwc->ihwc", labels, photos.astype(np.float32))).max() < 1e-2


def test_mixup_changes_most_images_a_little():
    """Of Beta(0.2, 0.2), 0.43 lie in 0.05 … 0.95."""
    given = {"images": np.zeros((400, 4, 4, 3), np.uint8), "labels": np.eye(400)}
    weights = np.diag(np.asarray(Augmentation("mixup")(given, training=True)["labels"]))
    assert 0.35 < ((weights > 0.05) & (weights < 0.95)).mean() < 0.51
    assert 0.45 < weights.mean() < 0.55


def test_cutmix_labels_by_area():
    """Images with one gray level each. A box is rounded to pixels, but not its label: half a pixel on each side."""
    pixels = np.broadcast_to(np.arange(200, dtype=np.float32)[:, None, None, None], (200, SIDE, SIDE, 3))
    result = Augmentation("cutmix", seed=2)({"images": pixels, "labels": np.eye(200)}, training=True)
    labels, images = np.asarray(result["labels"]), np.asarray(result["images"])[..., 0].astype(int)
    share = np.stack([np.bincount(image.ravel(), minlength=200) for image in images]) / SIDE**2
    assert np.abs(labels - share).max() < 2 / SIDE
    assert labels.sum(axis=1) == pytest.approx(np.ones(200), abs=1e-6)
    kept = np.diag(share)
    counts = np.histogram(kept, [0, 0.25, 0.5, 0.75, 1.001])[0]
    assert (counts >= 30).all() and (counts <= 75).all(), "Beta(1, 1) is uniform"


@pytest.mark.parametrize("name", MIXING)
def test_mixing_does_not_modify_its_input(name, photos):
    given = {"images": photos, "labels": np.eye(16, dtype=np.int64), "names": np.arange(16)}
    result = Augmentation(name)(given, training=True)
    assert given["images"] is photos and given["labels"].dtype == np.int64 and (given["labels"] == np.eye(16)).all()
    assert (np.asarray(result["names"]) == np.arange(16)).all(), "other entries are passed through"
    off = Augmentation(name)(given)
    assert (np.asarray(off["labels"]) == np.eye(16)).all() and off["labels"].dtype == "float32"


def test_the_operations_of_rand_augment(photos):
    pixels = photos.astype(np.float32)
    changed = [np.abs(np.asarray(layer(pixels, training=True)) - pixels).max() > 1 for layer in RandAugment().choices]
    assert changed == [False] + [True] * 11, "only the first changes nothing"


def test_rand_augment_draws_an_operation_for_each_image(photos):
    """Some copies of one image in a batch get the identity, most do not."""
    same = np.repeat(photos[3:4], 64, axis=0).astype(np.float32)
    unchanged = (np.asarray(RandAugment(operations=1)(same, training=True)) == same).all(axis=(1, 2, 3))
    assert 0 < unchanged.sum() < 32


def test_equalize_agrees_with_opencv(photos):
    plain = np.full((1, SIDE, SIDE, 3), 77, np.uint8)
    pixels = np.concatenate([photos, plain])
    expected = [np.stack([cv2.equalizeHist(p[..., c].copy()) for c in range(3)], axis=-1) for p in pixels]
    result = np.asarray(Equalize()(pixels.astype(np.float32), training=True))
    assert np.abs(result - np.float32(expected)).max() <= 1 and (result[-1] == 77).all()
    assert (np.asarray(Equalize()(pixels.astype(np.float32))) == pixels).all()


# ---- invalid input -----------------------------------------------------------------------------------


def test_invalid_settings():
    with pytest.raises(ValueError, match="zoom"):
        RandomAffine(zoom=1)
    with pytest.raises(ValueError, match="non-negative"):
        Augmentation("classic", seed=-1)


def test_the_error_about_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(KeyError, match="'mixdown'.*classic.*rand-augment"):
        Augmentation("mixdown")


@pytest.mark.parametrize("name", MIXING)
def test_mixing_needs_one_hot_labels(name, photos):
    with pytest.raises(ValueError, match="one-hot"):
        Augmentation(name)(photos, training=True)
    with pytest.raises(ValueError, match=r"one-hot.*shape \(16,\)"):
        Augmentation(name)({"images": photos, "labels": np.arange(16)}, training=True)


def test_a_batch_of_color_images_is_required(photos):
    for wrong in (photos[0], photos[..., :1]):
        with pytest.raises(ValueError, match="classic needs images"):
            Augmentation("classic")(wrong, training=True)


def test_copies_of_invalid_pixels(photos):
    layer = Augmentation("classic")
    pixels = photos.astype(np.float32)
    with pytest.raises(ValueError, match="multiply them by 255"):
        copies(pixels / 255, layer)
    for bad in (np.nan, np.inf, -1, 256):
        broken = pixels.copy()
        broken[0, 0, 0, 0] = bad
        with pytest.raises(ValueError, match="0 … 255; some"):
            copies(broken, layer)
    with pytest.raises(ValueError, match="shape"):
        copies(photos[0], layer)
    with pytest.raises(ValueError, match="at least 1"):
        copies(photos, layer, 0)


# ---- copies and siblings -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classic", "mixup"])
def test_copies(name, photos):
    result = copies(photos, Augmentation(name, seed=1), 3)
    assert result.shape == (16, 3, SIDE, SIDE, 3) and result.dtype == np.uint8
    assert (result[:, 0] != result[:, 1]).any() and (result[:, 1] != result[:, 2]).any()
    first = change(Augmentation(name, seed=1), photos, training=True)
    assert np.abs(result[:, 0] - first).max() <= 0.501
    assert (copies(photos.astype(np.float64), Augmentation(name, seed=1), 3) == result).all()


@pytest.fixture(scope="module")
def family():
    return siblings(samples.photos(), "classic", n=5, size=32, seed=0)


def test_siblings_have_the_group_of_their_original(family):
    originals = samples.photos()
    assert family.pixels.shape == (5 * len(originals), 32, 32, 3) and family.pixels.dtype == np.uint8
    assert (family.images.labels == np.repeat(originals.labels, 5)).all()
    assert (family.images.groups == np.repeat(np.arange(len(originals)), 5)).all()
    assert len(set(family.images.keys)) == len(family.images)
    assert family.images.keys[7] == originals.keys[1].replace(".", "~3.")
    first = next(batches(originals, 32))[1]
    assert (family.pixels[:160].reshape(32, 5, 32, 32, 3) == copies(first, Augmentation("classic", 0), 5)).all()


def test_a_random_split_of_siblings_leaks(family):
    """Rotation hardly changes a color histogram, so siblings on both sides raise its accuracy."""
    vectors = open_extractor("hsv-histogram").extract_arrays(family.pixels)
    labels, groups = family.images.labels, family.images.groups
    top1, siblings_found = {}, {}
    for leaky in (True, False):
        gallery, queries = family.split(0.2, leaky=leaky)
        assert sorted([*gallery, *queries]) == list(range(len(labels)))
        nearest = gallery[(vectors[queries] @ vectors[gallery].T).argmax(axis=1)]
        top1[leaky] = (labels[nearest] == labels[queries]).mean()
        siblings_found[leaky] = (groups[nearest] == groups[queries]).mean()
        sides = np.isin(np.arange(len(labels)), queries)
        assert (len(duplicates.split_siblings(family.images, sides)) > 100) == leaky
    assert siblings_found[True] > 0.9 and siblings_found[False] == 0
    assert top1[True] > top1[False] + 0.4


def test_siblings_of_duplicates_are_one_group():
    faces = att_faces.load().subset([0, 1, 10, 11])
    grouped = ImageSet(faces.name, faces.paths, faces.labels, faces.class_names, [-1, 3, 3, -1], faces.root)
    assert siblings(grouped, n=2, size=16).images.groups.tolist() == [4, 4, 3, 3, 3, 3, 7, 7]


def test_siblings_that_are_not_possible():
    with pytest.raises(ValueError, match="two originals"):
        siblings(samples.photos(), "cutmix")
    with pytest.raises(ValueError, match="GiB.*smaller size"):
        siblings(samples.photos(), size=1024)
