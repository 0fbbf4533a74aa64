"""Searches of saved engines by words, and combined queries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.features.extractor import FeatureExtractor
from helpers.features.text import LONGEST, TextError
from helpers.features.text_encoder import TextEncoder
from helpers.images.folders import from_folder
from helpers.search.backends.exact import ExactIndex
from helpers.search.combined import QueryPart, TextUnsupported, parse_text, search_parts
from helpers.search.engine import Engine
from helpers.search.gallery import GalleryTable
from helpers.search.persist import class_scores
from helpers.search.persist.engine_file import EngineFile
from helpers.search.persist.live import LiveEngine
from helpers.search.ranking import PAD
from helpers.search.word_index import GalleryWords, NoClassScores, WordIndex, classify, stored_classifier

N_CLASSES = 1000
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


def stored_scores(folder):
    """The contents that have class scores in a saved engine."""
    with EngineFile(folder) as file, file.reading() as connection:
        return class_scores.read(connection)[0]


class ColorFeatures(FeatureExtractor):
    """The mean of each channel."""

    name, dim, size, settings, batch_size = "color-features", 3, 8, {}, 4
    resize_rule = "squash"

    def compute(self, pixels):
        return pixels.mean(axis=(1, 2)) + 1


class ColorClasses(ColorFeatures):
    """Probabilities of "red", "green" and "blue", the first three of 1000 classes."""

    name, dim, normalize = "color-classes", N_CLASSES, False

    def compute(self, pixels):
        scores = np.zeros((len(pixels), N_CLASSES))
        scores[:, :3] = pixels.mean(axis=(1, 2)) + 1e-3
        return scores / scores.sum(axis=1, keepdims=True)


class ColorWords:
    """A space with one axis for each of the three classes."""

    def embed_images(self, scores):
        return scores[:, :3].astype(np.float32)

    def embed_likeliest(self, classes, probabilities):
        scores = np.zeros((len(classes), N_CLASSES), np.float32)
        np.put_along_axis(scores, classes.astype(np.int64), probabilities, axis=1)
        return self.embed_images(scores)

    def embed_text(self, text):
        names = [name for name in text.split() if name in COLORS]
        if not names:
            raise ValueError(f"no word of {text!r} is known")
        return np.mean([np.array(COLORS[name], np.float32) for name in names], axis=0)


def paint(path, color, size=(9, 7)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name, color in COLORS.items():
        paint(tmp_path / "images" / f"{name}.png", color)
    return Engine(ColorFeatures(), "exact:cosine").fit(from_folder(tmp_path / "images")).save(tmp_path / "my.engine")


def named(engine, ranking):
    return [engine.table.path(id).stem for id in ranking.ids[0] if id >= 0]


def text_query(engine, words, text, k=10, **options):
    return named(engine, search_parts(engine, [QueryPart(text=text)], k, words, **options))


def test_without_class_scores_the_error_names_the_command(folder):
    with pytest.raises(NoClassScores, match="lookalike classify"):
        WordIndex(folder, ColorWords())
    engine = Engine.load(folder, ColorFeatures())
    with pytest.raises(TextUnsupported, match="color-features embeds no texts"):
        search_parts(engine, [QueryPart(text="red")])


def test_a_word_finds_the_images_of_its_class(folder):
    engine = Engine.load(folder, ColorFeatures())
    assert classify(folder, engine, ColorClasses()) == 0
    words = WordIndex(folder, ColorWords())
    assert text_query(engine, words, "blue", 1) == ["blue"]
    assert text_query(engine, words, "yellow", 1) == ["yellow"]
    assert set(text_query(engine, words, "red", 2)) == {"red", "yellow"}
    assert text_query(engine, words, "red", 1, excluded=[engine.table.id_of("red.png")]) == ["yellow"]
    assert text_query(engine, words, "red", 4, allowed=[engine.table.id_of("blue.png")]) == ["blue"]
    with pytest.raises(ValueError, match="no word of 'xyz' is known"):
        text_query(engine, words, "xyz")


def test_additions_and_removals_are_followed(folder, tmp_path):
    with LiveEngine.open(folder, ColorFeatures()) as live:
        classify(folder, live.engine, ColorClasses())
        words = WordIndex(folder, ColorWords())
        assert text_query(live.engine, words, "red", 1) == ["red"]
        live.remove([live.engine.table.id_of("red.png")])
        assert text_query(live.engine, words, "red", 1) == ["yellow"]
        paint(tmp_path / "new" / "dark.png", (90, 0, 0))
        live.add(from_folder(tmp_path / "new"))
        assert [live.engine.table.path(id).stem for id in words.missing(live.engine)] == ["dark"]
        assert text_query(live.engine, words, "red", 1) == ["yellow"]
        classify(folder, live.engine, ColorClasses())
        assert not len(words.missing(live.engine))
        assert text_query(live.engine, words, "red", 1) == ["dark"]
        live.compact()
        assert text_query(live.engine, words, "red", 1) == ["dark"]


def test_scores_stay_when_the_engine_is_saved_again(folder, tmp_path):
    engine = Engine.load(folder, ColorFeatures())
    classify(folder, engine, ColorClasses())
    words = WordIndex(folder, ColorWords())
    assert text_query(engine, words, "green", 1) == ["green"]
    # Other rows get the same ids.
    (tmp_path / "images" / "blue.png").unlink()
    paint(tmp_path / "images" / "a-new-one.png", (1, 2, 3))
    again = Engine(ColorFeatures(), "exact:cosine").fit(from_folder(tmp_path / "images"))
    again.save(folder, replace=True)
    assert text_query(again, words, "green", 1) == ["green"]
    assert len(stored_scores(folder)) == 3
    assert [again.table.path(id).stem for id in words.missing(again)] == ["a-new-one"]


def test_another_classifier_replaces_the_scores(folder):
    class Other(ColorClasses):
        name = "other"

    engine = Engine.load(folder, ColorFeatures())
    classify(folder, engine, ColorClasses())
    classify(folder, engine, Other())
    assert stored_classifier(folder).name == "other"
    assert len(stored_scores(folder)) == 4


class Inverted(ColorClasses):
    """Another classifier, which takes "red" for "blue" and the reverse."""

    name = "inverted-classes"

    def compute(self, pixels):
        return super().compute(pixels[..., ::-1])


def test_an_open_index_follows_another_classifier(folder):
    engine = Engine.load(folder, ColorFeatures())
    classify(folder, engine, ColorClasses())
    words = WordIndex(folder, ColorWords())
    assert text_query(engine, words, "blue", 1) == ["blue"]
    # A run that was interrupted: some images have scores of the new classifier, and no one has old ones.
    ids = [engine.table.id_of(f"{name}.png") for name in ("green", "red")]
    classify(folder, engine, Inverted(), ids=ids)
    assert set(text_query(engine, words, "blue")) == {"red", "green"}
    assert sorted(words.missing(engine)) == sorted(set(range(4)) - set(ids))
    classify(folder, engine, Inverted())
    assert text_query(engine, words, "blue", 1) == ["red"] and not len(words.missing(engine))
    assert text_query(engine, words, "red", 1) == ["blue"]


def test_a_search_looks_only_at_what_has_changed(folder, tmp_path, monkeypatch):
    with LiveEngine.open(folder, ColorFeatures()) as live:
        ids = [live.engine.table.id_of(f"{name}.png") for name in ("green", "blue")]
        classify(folder, live.engine, ColorClasses(), ids=ids)
        words, looked, content = WordIndex(folder, ColorWords()), [], GalleryTable.content
        monkeypatch.setattr(GalleryTable, "content", lambda table, id: looked.append(id) or content(table, id))
        assert text_query(live.engine, words, "blue", 1) == ["blue"]
        assert looked == [0, 1, 2, 3], "once each, though two images have no scores"
        before = words.of(live.engine)[0]
        paint(tmp_path / "new" / "dark.png", (90, 0, 0))
        live.add(from_folder(tmp_path / "new"))
        live.remove([ids[1]])
        looked.clear()
        assert text_query(live.engine, words, "blue", 1) == ["green"] and looked == [4]
        classify(folder, live.engine, ColorClasses())
        looked.clear()
        assert set(text_query(live.engine, words, "red", 3)) == {"red", "yellow", "dark"} and looked == []
        assert len(before) == 2, "a search that uses it does not find images that its engine lacks"
        words.close()


def test_an_interrupted_run_continues(folder, monkeypatch):
    monkeypatch.setattr("helpers.search.word_index._WRITTEN", 2)
    engine = Engine.load(folder, ColorFeatures())

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classify(folder, engine, ColorClasses(), stop)
    assert len(stored_scores(folder)) == 2
    steps = []
    assert classify(folder, engine, ColorClasses(), steps.append) == 0
    assert steps == [2]


@pytest.mark.filterwarnings("ignore::helpers.images.reading.UnreadableImageWarning")
def test_an_image_that_is_gone_is_counted(folder, tmp_path):
    engine = Engine.load(folder, ColorFeatures())
    (tmp_path / "images" / "blue.png").unlink()
    assert classify(folder, engine, ColorClasses()) == 1
    assert "blue" not in text_query(engine, WordIndex(folder, ColorWords()), "blue")


def test_stored_scores_are_the_likeliest():
    scores = np.random.default_rng(0).dirichlet(np.ones(N_CLASSES), 7).astype(np.float32)
    classes, probabilities = class_scores.likeliest(scores)
    assert np.array_equal(probabilities, -np.sort(-scores, axis=1)[:, : class_scores.DEPTH])
    assert np.array_equal(np.take_along_axis(scores, classes.astype(np.int64), axis=1), probabilities)
    assert [len(set(row)) for row in classes.tolist()] == [class_scores.DEPTH] * 7


# ---- combined queries --------------------------------------------------------------------------------------------


def test_image_with_and_without_a_word(folder):
    engine = Engine.load(folder, ColorFeatures())
    classify(folder, engine, ColorClasses())
    words = WordIndex(folder, ColorWords())
    yellow = engine.extractor.extract_arrays([np.full((8, 8, 3), (255, 255, 0), np.uint8)])[0]
    without = search_parts(engine, [QueryPart(vector=yellow), QueryPart(-1, text="red")], 4, words)
    assert named(engine, without)[0] == "green"
    both = search_parts(engine, [QueryPart(vector=yellow), QueryPart(0.5, text="blue")], 4, words)
    cosines = engine.index.search(yellow[None], 4)
    expected = dict(zip(cosines.ids[0].tolist(), cosines.scores[0], strict=True))
    by_text = words.of(engine)[0].search(words.embed_text("blue")[None], 4)
    for id, score in zip(by_text.ids[0].tolist(), by_text.scores[0], strict=True):
        expected[id] = (expected[id] + 0.5 * score) / 1.5
    assert dict(zip(both.ids[0].tolist(), both.scores[0], strict=True)) == pytest.approx(expected, abs=1e-6)


def test_one_image_is_searched_as_by_the_index(folder):
    engine = Engine.load(folder, ColorFeatures())
    vector = engine.index.vectors([1])[0]
    found, plain = search_parts(engine, [QueryPart(3, vector)], 4), engine.index.search(vector[None], 4)
    assert np.array_equal(found.ids, plain.ids) and np.array_equal(found.scores, plain.scores)


def test_class_scores_in_memory_give_the_order_of_stored_ones(folder):
    engine = Engine.load(folder, ColorFeatures())
    scores = ColorClasses().extract(engine.gallery, progress=False)
    classify(folder, engine, ColorClasses())
    stored, in_memory = WordIndex(folder, ColorWords()), GalleryWords(ColorWords(), scores)
    for parts in (parse_text("red"), parse_text("blue -green"), [QueryPart(vector=np.eye(3)[0]), *parse_text("-red")]):
        found, expected = (search_parts(engine, parts, 4, words) for words in (in_memory, stored))
        assert np.array_equal(found.ids, expected.ids)
        assert found.scores == pytest.approx(expected.scores, abs=1e-3)


def test_class_scores_in_memory_leave_out_what_the_engine_lacks(folder):
    engine = Engine.load(folder, ColorFeatures())
    scores = ColorClasses().extract(engine.gallery, progress=False)
    red, yellow = engine.table.id_of("red.png"), engine.table.id_of("yellow.png")
    scores[yellow] = np.nan
    words = GalleryWords(ColorWords(), scores)
    assert yellow not in words.of(engine)[0].ids and words.of(engine)[1] is None
    engine.index.remove([red])
    assert text_query(engine, words, "red")[0] not in ("red", "yellow")
    assert words.of(engine)[1].ids.tolist() == [red]
    nothing = GalleryWords(ColorWords(), np.full((4, N_CLASSES), np.nan, np.float32))
    assert text_query(engine, nothing, "red") == []


def test_a_ranking_has_k_columns_in_both_spaces(folder):
    engine = Engine.load(folder, ColorFeatures())
    classify(folder, engine, ColorClasses())
    words = WordIndex(folder, ColorWords())
    image = QueryPart(vector=np.eye(3)[0])
    for parts in (parse_text("red"), [image], [image, *parse_text("-red")]):
        found = search_parts(engine, parts, 6, words)
        assert found.ids.shape == found.scores.shape == (1, 6)
        assert np.count_nonzero(found.ids[0] == PAD) == 2 and np.isneginf(found.scores[0, -2:]).all()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("boat at night -people", [(1, "boat at night"), (-1, "people")]),
        ("  −snow boat\t-people  at night ", [(1, "boat at night"), (-1, "snow"), (-1, "people")]),
        ("high-speed train - 5", [(1, "high-speed train - 5")]),
        ("-people", [(-1, "people")]),
        ("--people", [(-1, "-people")]),
        ("", []),
        (" \n ", []),
    ],
)
def test_the_parts_of_a_text(text, parts):
    assert [(part.weight, part.text) for part in parse_text(text)] == parts


def test_a_text_has_a_limit():
    assert len(parse_text("-a " * (LONGEST // 3))) == LONGEST // 3
    with pytest.raises(TextError, match="1,001 characters"):
        parse_text("a" * (LONGEST + 1))


class Bilingual(ColorFeatures, TextEncoder):
    """Images and names of colors in one space."""

    name = "bilingual"

    def embed_text(self, texts):
        return np.array([COLORS[text] for text in texts], np.float32) + 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-2, 2).filter(lambda w: abs(w) > 0.01), st.booleans()), min_size=1, max_size=4))
def test_one_space_gives_the_weighted_mean_of_cosines(parts):
    rng = np.random.default_rng(0)
    engine = Engine(Bilingual(), ExactIndex("cosine"))
    gallery = rng.uniform(0.1, 1, (12, 3)).astype(np.float32)
    engine.index.add(gallery)
    vectors = rng.uniform(0.1, 1, (len(parts), 3)).astype(np.float32)
    names, query = list(COLORS), []
    for row, (weight, is_text) in enumerate(parts):
        query.append(QueryPart(weight, text=names[row]) if is_text else QueryPart(weight, vectors[row]))
        if is_text:
            vectors[row] = Bilingual().embed_text([names[row]])[0]
    if not any(weight > 0 for weight, _ in parts):
        with pytest.raises(ValueError, match="positive weight"):
            search_parts(engine, query)
        return
    weights = np.array([weight for weight, _ in parts])
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    expected = weights @ (unit(vectors) @ unit(gallery).T) / np.abs(weights).sum()
    found = search_parts(engine, query, 12)
    assert found.scores[0] == pytest.approx(np.sort(expected)[::-1], abs=1e-5)


@pytest.mark.parametrize("part", [{}, {"vector": np.ones(3), "text": "red"}, {"weight": 0, "text": "red"},
                                  {"weight": np.nan, "text": "red"}])  # fmt: skip
def test_a_wrong_part_is_refused(part):
    with pytest.raises(ValueError, match="part of a query"):
        QueryPart(**part)


def test_distances_are_refused(tmp_path):
    paint(tmp_path / "images" / "red.png", COLORS["red"])
    engine = Engine(ColorFeatures(), "exact:euclidean").fit(from_folder(tmp_path / "images"))
    with pytest.raises(TextUnsupported, match="euclidean distances"):
        search_parts(engine, [QueryPart(text="red")])
