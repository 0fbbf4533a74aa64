"""Cached results: after changed settings, interruptions and damage."""

from pathlib import Path

import numpy as np
import pytest

from helpers.features import results, vocabulary
from helpers.images import samples
from helpers.lessons import classifiers

pytestmark = pytest.mark.usefixtures("own_cache")


def test_each_key_is_computed_once():
    calls = []

    def compute():
        calls.append(len(calls))
        return {"numbers": np.arange(3) + len(calls), "text": "ä"}

    first, again = (results.cached("test", {"a": 1}, compute) for _ in range(2))
    other = results.cached("test", {"a": 2}, compute)
    assert calls == [0, 1]
    assert first["numbers"].tolist() == again["numbers"].tolist() == [1, 2, 3] and str(again["text"]) == "ä"
    assert other["numbers"].tolist() == [2, 3, 4]
    assert results.cached("other", {"a": 1}, compute)["numbers"].tolist() == [3, 4, 5]


def test_an_interrupted_computation_stores_nothing(own_cache, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.cached("test", {}, interrupted)
    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.cached("test", {}, lambda: {"a": 1})
    monkeypatch.undo()
    monkeypatch.setenv("LOOKALIKE_CACHE", str(own_cache))
    assert results.cached("test", {}, lambda: {"a": 2})["a"] == 2


def test_a_damaged_file_is_computed_again(own_cache):
    results.cached("test", {}, lambda: {"a": np.arange(1000)})
    (path,) = (own_cache / "results").glob("*.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.warns(results.ResultsWarning, match="is damaged"):
        assert results.cached("test", {}, lambda: {"a": 2})["a"] == 2
    assert results.cached("test", {}, lambda: {"a": 3})["a"] == 2


def test_without_a_writable_folder(own_cache):
    own_cache.write_text("a file where the folder should be")
    with pytest.warns(results.ResultsWarning, match="can't be written"):
        assert results.cached("test", {}, lambda: {"a": 2})["a"] == 2


def test_objects_are_refused():
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        results.cached("test", {}, lambda: {"a": np.array([None])})


def test_classifiers_are_tuned_again_for_other_vectors_labels_rows_and_seeds(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    vectors = rng.normal(size=(60, 4)) + labels[:, None]
    train, test = np.arange(0, 60, 2), np.arange(1, 60, 2)
    searches, original = [], classifiers.GridSearchCV.fit

    def counted(self, *given):
        searches.append(self)
        return original(self, *given)

    monkeypatch.setattr(classifiers.GridSearchCV, "fit", counted)

    def compare(vectors=vectors, labels=labels, train=train, seed=0, name="k nearest"):
        return classifiers.compare_classifiers({"v": vectors}, labels, train, test, [name], seed=seed)

    first, again = compare(), compare()
    assert len(searches) == 1
    assert first.table.equals(again.table)
    one, other = first.fitted["v", "k nearest"], again.fitted["v", "k nearest"]
    assert one.settings == other.settings and np.array_equal(one.test, other.test) and other.test.dtype == np.int64
    swapped = labels.copy()
    swapped[[0, 30]] = swapped[[30, 0]]
    for changed in (
        {"vectors": vectors * 1.5}, {"labels": swapped}, {"train": train[2:]}, {"seed": 1}, {"name": "naive Bayes"},
    ):  # fmt: skip
        before = len(searches)
        compare(**changed)
        assert len(searches) == before + 1, changed


def test_vocabularies_are_learned_again_for_other_settings(monkeypatch):
    images = samples.photos().subset(range(0, 240, 40))
    config = vocabulary.KeypointConfig(limit=60)
    learned, original = [], vocabulary._clustered

    def counted(*given):
        learned.append(given)
        return original(*given)

    monkeypatch.setattr(vocabulary, "_clustered", counted)
    drawn = vocabulary.draw(images, config, progress=False)

    def learn(words=5, dim=8, seed=0, images=images, drawn=drawn):
        return vocabulary.learn(images, words, config, dim, seed=seed, progress=False, drawn=drawn)

    first, again = learn(), learn()
    assert len(learned) == 1 and first.digest == again.digest and first.learned_from == again.learned_from
    for changed in (
        {"words": 6}, {"dim": 9}, {"seed": 1}, {"images": images.subset(range(5))}, {"drawn": drawn[1:]},
    ):  # fmt: skip
        before = len(learned)
        assert learn(**changed).digest != first.digest
        assert len(learned) == before + 1, changed
    sizes = vocabulary.compare_sizes(drawn, [5, 10], 8)
    before = len(learned)
    assert vocabulary.compare_sizes(drawn, [5, 10], 8).equals(sizes) and len(learned) == before
    vocabulary.compare_sizes(drawn, [5, 10], 8, seed=1)
    assert len(learned) == before + 2
