"""A Keras model as an extractor: vectors, fingerprints after further training, and bad shapes."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from PIL import Image

from helpers.evaluation import builders, metrics, runner
from helpers.features.color_shape import Pixels
from helpers.features.composite import Concatenated, TestTimeAugmentation
from helpers.features.deep import ModelExtractor
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.images.reading import read_image, resize
from helpers.lessons.lesson import Lesson
from helpers.networks import zoo
from helpers.search.index import open_index
from helpers.service.request_extraction import RequestExtraction
from helpers.service.settings import Settings


def a_model(size=16, dim=5, seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Conv2D(4, 3, strides=2, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(dim)]
    return keras.Sequential([keras.Input((size, size, 3)), *layers])


def an_extractor(model, **settings):
    return ModelExtractor("mine", model, "scratch on the sample", **settings)


@pytest.fixture
def photos():
    return samples.photos().subset(range(0, 150, 10))


def by_hand(model, images, prepare=lambda pixels: pixels):
    pixels = np.stack([resize(read_image(path), model.inputs[0].shape[1]) for path in images.paths])
    output = model.predict(prepare(pixels.astype(np.float32)), verbose=0)
    return output / np.linalg.norm(output, axis=1, keepdims=True)


def test_vectors_equal_the_output_of_the_model(own_cache, photos):
    model = a_model()
    mine = an_extractor(model)
    assert (mine.name, mine.size, mine.dim, mine.weights) == ("mine", 16, 5, "scratch on the sample")
    found = mine.extract(photos, progress=False)
    assert found.dtype == np.float32 and np.allclose(found, by_hand(model, photos), atol=1e-5)
    assert np.allclose(an_extractor(model, batch_size=4).extract(photos, cache=False, progress=False), found, atol=1e-5)


@pytest.mark.parametrize(
    "wrapped",
    [lambda mine: mine, TestTimeAugmentation, lambda mine: Concatenated([Pixels(), mine])],
    ids=["itself", "views", "concatenated"],
)
def test_single_images_on_all_cores(photos, wrapped):
    mine = an_extractor(a_model())
    images, extractor = [read_image(path) for path in photos.paths[:3]], wrapped(mine)
    expected, before = extractor.extract_arrays(images), mine.network
    extractor.expect_single_images()
    alone = np.concatenate([extractor.extract_arrays([image]) for image in images])
    np.testing.assert_allclose(alone, expected, atol=1e-6)
    np.testing.assert_array_equal(extractor.extract_arrays(images), expected)
    assert mine.single_images and mine.network is not before
    # A second call does not build the network again.
    built = mine.network
    extractor.expect_single_images()
    extractor.prepare()
    assert mine.network is built


def test_the_service_expects_single_images(tmp_path):
    mine = an_extractor(a_model())
    extraction = RequestExtraction(mine, Settings(folder=tmp_path), lambda size: None)

    async def prepare():
        await extraction.prepare()
        await extraction.close()

    with ThreadPoolExecutor(1) as thread:
        # Playwright's event loop may run in this thread.
        thread.submit(lambda: asyncio.run(prepare())).result()
    assert extraction.ready and mine.single_images and mine.network is not None


@pytest.mark.parametrize("name", ["resnet50", "inceptionresnetv2", "efficientnetv2l"])
def test_preprocessing(own_cache, photos, name):
    model, prepare = a_model(), zoo.preprocessing(name)
    mine = an_extractor(model, prepare=prepare)
    assert np.allclose(mine.extract(photos, progress=False), by_hand(model, photos, prepare), atol=1e-5)


def test_the_resize_rule(own_cache, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 60, 3), np.uint8)).save(tmp_path / "wide.png")
    images, model = from_folder(tmp_path), a_model()
    squashed, padded = (an_extractor(model, resize=rule).extract(images, progress=False) for rule in ("squash", "pad"))
    assert np.abs(squashed - padded).max() > 1e-3


# ---- the fingerprint ------------------------------------------------------------------------------------


def train(model, seed=0):
    random = np.random.default_rng(seed)
    model.compile("adam", "mse")
    model.fit(random.uniform(0, 255, (4, 16, 16, 3)), random.normal(size=(4, 5)), verbose=0)


def test_training_changes_fingerprint_and_vectors(own_cache, photos):
    """Of new extractors and of existing ones."""
    model = a_model()
    first = an_extractor(model)
    name, old = first.fingerprint, first.extract(photos, progress=False)
    train(model)
    for mine in (first, an_extractor(model)):
        assert mine.fingerprint != name and mine.origin["sha256"] not in name
        found = mine.extract(photos, progress=False)
        assert np.allclose(found, by_hand(model, photos), atol=1e-5) and not np.allclose(found, old, atol=1e-4)


def test_an_equal_model_shares_the_vectors(own_cache, photos):
    """Its layers have other names, as in the next run of a notebook."""
    first, second = an_extractor(a_model()), an_extractor(a_model())
    old = first.extract(photos, progress=False)
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.extract(photos, progress=False), old) and second.computed == 0


def test_settings_change_the_fingerprint():
    model = a_model()
    relu = keras.Sequential([keras.Input((16, 16, 3)), *model.layers[:2], keras.layers.Dense(5, activation="relu")])
    relu.set_weights(model.get_weights())
    extractors = [
        an_extractor(model),
        an_extractor(relu),
        an_extractor(a_model(seed=1)),
        an_extractor(model, resize="crop"),
        an_extractor(model, prepare=zoo.preprocessing("resnet50")),
        an_extractor(model, prepare=zoo.preprocessing("inceptionresnetv2")),
        an_extractor(model, prepare=lambda pixels: pixels / 255),
        an_extractor(model, prepare=lambda pixels: pixels / 128),
    ]
    assert len({mine.fingerprint for mine in extractors}) == len(extractors)
    same = [an_extractor(model, batch_size=3), an_extractor(model, prepare=zoo.preprocessing("vgg16"))]
    assert [mine.fingerprint for mine in same] == [extractors[0].fingerprint, extractors[4].fingerprint]


def test_a_lesson_records_the_weights(own_cache, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(tmp_path / "figures"))
    model = a_model()
    mine = an_extractor(model)
    protocol = builders.leave_one_out(photos, "a-test")
    run = runner.run(protocol, mine.extract(photos, progress=False), open_index("exact:cosine"))
    scores = metrics.evaluate(run, protocol)
    file = Lesson("99_test", {"PROFILE": "sample", "SEED": 0}).finish("it runs", {}, mine, {"mine": scores})
    written = json.loads(file.read_text(encoding="utf-8"))["weights"]
    assert written["extractor"] == mine.fingerprint and written["source"] == "scratch on the sample"
    assert len(written["sha256"]) == 64 and written["sha256"] == mine.origin["sha256"]


# ---- bad shapes, all images ------------------------------------------------------------------------------


def test_other_shapes_are_refused():
    def model(shape, *layers):
        return keras.Sequential([keras.Input(shape), *layers])

    pool, dense = keras.layers.GlobalAveragePooling2D, keras.layers.Dense
    for wrong, found in (
        (model((16, 20, 3), pool()), r"takes \[\(None, 16, 20, 3\)\]"),
        (model((16, 16, 1), pool()), r"takes \[\(None, 16, 16, 1\)\]"),
        (model((None, None, 3), pool()), r"takes \[\(None, None, None, 3\)\]"),
        (model((7,), dense(3)), r"takes \[\(None, 7\)\]"),
        (keras.Sequential([dense(3)]), r"takes \[\]"),
    ):
        with pytest.raises(ValueError, match=r"^mine: the model must take \(b, size, size, 3\).*it " + found):
            an_extractor(wrong)
    with pytest.raises(
        ValueError, match=r"^mine: the model must give vectors \(b, dim\), it gives .*\(None, 8, 8, 2\)"
    ):
        an_extractor(model((16, 16, 3), keras.layers.Conv2D(2, 3, strides=2, padding="same")))
    pixels = keras.Input((16, 16, 3))
    with pytest.raises(ValueError, match=r"it gives \[\(None, 3\), \(None, 3\)\]"):
        an_extractor(keras.Model(pixels, [pool()(pixels), pool()(pixels)]))
    with pytest.raises(ValueError, match=r"it takes \[\(None, 16, 16, 3\), \(None, 16, 16, 3\)\]"):
        an_extractor(keras.Model([pixels, other := keras.Input((16, 16, 3))], pool()(pixels + other)))


def test_images_of_all_kinds(own_cache, tmp_path):
    random = np.random.default_rng(0)
    color = Image.fromarray(random.integers(0, 256, (24, 30, 3), np.uint8))
    upright = Image.Exif()
    upright[0x0112] = 6
    color.save(tmp_path / "color.png")
    color.save(tmp_path / "turned.png", exif=upright)
    color.convert("L").save(tmp_path / "gray.png")
    color.convert("P").save(tmp_path / "palette.gif")
    color.convert("CMYK").save(tmp_path / "print.tif")
    color.convert("RGBA").save(tmp_path / "see-through.webp", lossless=True)
    Image.fromarray(random.integers(0, 65536, (24, 30), np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.bmp")
    (tmp_path / "broken.jpg").write_bytes(b"oh")
    images, model = from_folder(tmp_path), a_model()
    with pytest.warns(UserWarning, match=r"1 of 9(.|\n)*broken\.jpg"):
        found = dict(zip(images.keys, an_extractor(model).extract(images, progress=False), strict=True))
    assert np.isnan(found.pop("broken.jpg")).all() and len(found) == 8
    assert np.allclose([np.linalg.norm(vector) for vector in found.values()], 1, atol=1e-5)
    assert np.allclose(found["see-through.webp"], found["color.png"], atol=1e-5)
    assert not np.allclose(found["turned.png"], found["color.png"], atol=1e-3)
    rest = images.where(lambda key: key != "broken.jpg")
    assert np.allclose(list(found.values()), by_hand(model, rest), atol=1e-5)
