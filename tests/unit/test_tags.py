"""Calibrated scores, tags, and their tables and XMP sidecars."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import keras  # noqa: F401 (its first import starts a process, which the tests do not)
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from helpers.evaluation.calibration import calibration_error, reliability
from helpers.features import tags
from helpers.features.calibration import TemperatureScaling
from helpers.features.deep import ClassScores
from helpers.features.tags import Tag, Tagger
from helpers.images import samples
from helpers.text import printable


def drawn(temperature, count=4000, seed=0):
    """Probabilities that are too sure by a temperature, and labels drawn from the true ones."""
    random = np.random.default_rng(seed)
    logits = random.standard_normal((count, 5)) * 2
    labels = (softmax(logits, axis=1).cumsum(axis=1) < random.uniform(size=(count, 1))).sum(axis=1)
    return softmax(logits * temperature, axis=1), labels


# ---- calibration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(temperature):
    probabilities, labels = drawn(temperature)
    scaling = TemperatureScaling().fit(probabilities, labels)
    assert scaling.temperature == pytest.approx(temperature, rel=0.06)
    new, new_labels = drawn(temperature, seed=1)
    found = scaling.transform(new)
    np.testing.assert_allclose(found, softmax(np.log(new) / scaling.temperature, axis=1), atol=1e-6)
    assert (found.argmax(axis=1) == new.argmax(axis=1)).all()
    # By scikit-learn, no other temperature on a grid is better for the data of the fit.
    losses = [
        log_loss(labels, softmax(np.log(probabilities) / t, axis=1)) for t in np.geomspace(0.3, 5, 40)
    ]  # fmt: skip
    assert log_loss(labels, softmax(np.log(probabilities) / scaling.temperature, axis=1)) <= min(losses)
    assert calibration_error(found.max(axis=1), found.argmax(axis=1) == new_labels) < 0.03


def test_probabilities_of_zero_and_wrong_input():
    np.testing.assert_allclose(TemperatureScaling(2).transform(np.array([[1.0, 0.0]])), [[1, 1e-6]], atol=1e-6)
    with pytest.raises(ValueError, match="temperature must be positive"):
        TemperatureScaling(0)
    with pytest.raises(ValueError, match=r"one label in 0 … 1 for each of 2 images"):
        TemperatureScaling().fit(np.ones((2, 2)), np.array([0, 2]))
    with pytest.raises(ValueError, match="must be finite and not negative"):
        TemperatureScaling().transform(np.array([[np.nan, 1]]))
    with pytest.raises(ValueError, match="must be finite and not negative"):
        TemperatureScaling().transform(np.array([[np.inf, 1]]))


def test_reliability_by_hand():
    table = reliability(np.array([0.1, 0.15, 0.9, 1.0, 0.95, 0.5]), np.array([False, True, True, True, False, True]), 2)
    assert table["count"].tolist() == [2, 4] and table["low"].tolist() == [0, 0.5]
    assert table["right"].tolist() == [0.5, 0.75]
    np.testing.assert_allclose(table["score"], [0.125, 3.35 / 4])
    expected = (2 * 0.375 + 4 * (3.35 / 4 - 0.75)) / 6
    assert calibration_error(np.array([0.1, 0.15, 0.9, 1.0, 0.95, 0.5]), np.array([0, 1, 1, 1, 0, 1], bool), 2) == (
        pytest.approx(expected)
    )
    for scores, right in (([0.5], [1]), ([1.5], [True]), ([np.nan], [True]), ([], [])):
        with pytest.raises(ValueError, match=r"expected scores|must lie in"):
            reliability(np.array(scores), np.array(right))


# ---- tags -------------------------------------------------------------------------------------------------


def test_tags_by_hand():
    tagger = Tagger(["crane", "dog", "crane", "cat"], k=2, threshold=0.2)
    found = tagger.tags(np.array([[0.3, 0.35, 0.25, 0.1], [0, 0.85, 0, 0.15], [0.1, 0.1, 0.05, 0.1]]))
    assert found == [(Tag("crane", pytest.approx(0.55)), Tag("dog", 0.35)), (Tag("dog", 0.85),), ()]
    calibrated = Tagger(["a", "b"], TemperatureScaling(0.5)).tags(np.array([[0.6, 0.4]]))
    assert calibrated == [(Tag("a", pytest.approx(0.36 / 0.52)), Tag("b", pytest.approx(0.16 / 0.52)))]
    unread = Tagger(["a", "b"], TemperatureScaling(0.5), threshold=0).tags(np.array([[np.nan, np.nan], [1, 0]]))
    assert unread[0] == () and unread[1][0] == Tag("a", 1)


def test_tags_of_wrong_input():
    with pytest.raises(ValueError, match=r"expected scores \(n, 1000\), got \(1, 3\)"):
        Tagger().tags(np.ones((1, 3)))
    with pytest.raises(KeyError, match="no temperature of 'resnet50' is known, only of efficientnet-lite0"):
        Tagger.for_network("resnet50")
    for k, threshold in ((0, 0.1), (1, 2)):
        with pytest.raises(ValueError, match="k must be at least 1 and threshold"):
            Tagger(k=k, threshold=threshold)


def test_tags_of_the_sample():
    wanted = {"camel.jpg": "Arabian camel", "hen.jpg": "hen"}
    images = samples.photos().where(lambda key: key.rpartition("/")[2] in wanted)
    scores = ClassScores("efficientnet-lite0").extract(images, progress=False)
    found = Tagger.for_network("efficientnet-lite0").tags(scores)
    assert [line[0].word for line in found] == [wanted[key.rpartition("/")[2]] for key in images.keys]
    assert all(tag.score >= 0.1 for line in found for tag in line)


def test_the_table_can_be_read_back():
    file = io.StringIO()
    tags.write_table(file, ['a,"b".jpg', "none.jpg"], [(Tag("wall, clock", 0.51239), Tag("é", 0.2)), ()])
    rows = list(csv.reader(io.StringIO(file.getvalue())))
    expected = [['a,"b".jpg', "wall, clock", "0.5124"], ['a,"b".jpg', "é", "0.2"], ["none.jpg", "", ""]]
    assert rows == [["image", "tag", "score"], *expected]


# ---- sidecars ---------------------------------------------------------------------------------------------

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


def keywords(content: bytes) -> list[str]:
    """The words of a sidecar, along the path that the XMP specification defines."""
    root = ElementTree.fromstring(content)
    assert root.tag == "{adobe:ns:meta/}xmpmeta"
    [bag] = root.findall(f"{RDF}RDF/{RDF}Description/{{http://purl.org/dc/elements/1.1/}}subject/{RDF}Bag")
    return [item.text for item in bag]


@settings(max_examples=60)
@given(st.lists(st.text(min_size=1)))
@example(["<b>&amp;", "a\0b", "]]>", "\ud800", "\ufffe", "Zürich 東京", "x\"y'", "\r\n"])
def test_a_sidecar_is_valid_xml_for_any_words(words):
    content = tags.sidecar(words)
    assert keywords(content) == list(map(printable, words))
    assert content.startswith('<?xpacket begin="\ufeff"'.encode()) and content.rstrip().endswith(b"?>")
    assert content.decode().count("xpacket") == 2


@pytest.fixture
def photos(tmp_path):
    files = [tmp_path / name for name in ("a.jpg", "a.png", "no tags.jpg", "b & c.jpg")]
    for file in files:
        file.write_bytes(b"image")
    return files


FOUND = [(Tag("dog", 0.9), Tag("hot dog", 0.2)), (Tag("cat", 0.9),), (), (Tag("a & b", 0.5),)]


def test_sidecars_next_to_images(photos, tmp_path):
    result = tags.write_sidecars(photos, FOUND)
    assert [path.name for path in result.written] == ["a.jpg.xmp", "a.png.xmp", "b & c.jpg.xmp"]
    assert result.kept == [] and len(list(tmp_path.iterdir())) == 7
    assert [keywords(path.read_bytes()) for path in result.written] == [["dog", "hot dog"], ["cat"], ["a & b"]]


def test_existing_sidecars_are_kept(photos, tmp_path):
    old = tmp_path / "a.jpg.xmp"
    old.write_text("rating: 5")
    result = tags.write_sidecars(photos, FOUND)
    assert result.kept == [old] and old not in result.written and old.read_text() == "rating: 5"
    with pytest.raises(ValueError):
        tags.write_sidecars(photos[1:], FOUND)
