"""Rocchio's feedback: by hand, what must not change, and whether marks help on real images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.search.backends.exact import ExactIndex
from helpers.search.rerank.feedback import rocchio


def length_one(vector):
    return np.asarray(vector) / np.linalg.norm(vector)


def test_by_hand():
    """(1, 0) + 0.75 · mean of (0, 1) and (1, 0) - 0.15 · (0, 1) = (1.375, 0.225)."""
    found = rocchio([2, 0], [[0, 3], [1, 0]], [[0, 5]])
    assert found.dtype == np.float32
    assert found == pytest.approx(length_one([1.375, 0.225]), abs=1e-6)
    # Only bad ones: (0.6, 0.8) - 0.5 · (0, 1).
    assert rocchio([3, 4], [], [[0, 1]], gamma=0.5) == pytest.approx(length_one([0.6, 0.3]), abs=1e-6)
    # Only good ones, the query itself left out.
    assert rocchio([3, 4], [[0, 1], [1, 0]], [], alpha=0) == pytest.approx(length_one([1, 1]), abs=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "l1"])
def test_by_hand_for_a_distance(metric):
    """(2, 0) + 0.75 · (6, 4) - 0.15 · (0, 2), over 1.6: lengths count, and the query stays among the vectors."""
    found = rocchio([2, 0], [[6, 8], [6, 0]], [[0, 2]], metric=metric)
    assert found == pytest.approx(np.array([6.5, 2.7]) / 1.6, abs=1e-6)
    # Where all agree, there is nowhere to go.
    assert rocchio([5, 7], [[5, 7]], [[5, 7]], metric=metric) == pytest.approx([5, 7], abs=1e-6)
    assert rocchio([5, 7], [], [[5, 7]], metric=metric) == pytest.approx([5, 7], abs=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
def test_without_marks_the_query_is_what_it_was(metric):
    query = np.array([3, 4, 0], np.float32)
    for nothing in ([], None, np.empty((0, 3))):
        nothing = [] if nothing is None else nothing
        found = rocchio(query, nothing, nothing, metric=metric)
        assert np.array_equal(found, query) and found is not query and found.dtype == np.float32


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(0, 5))
def test_whatever_is_marked(seed, n_good, n_bad):
    """The order of marks, and for the cosine the lengths of vectors, change nothing; good ones come nearer."""
    rng = np.random.default_rng(seed)
    query, good, bad = rng.normal(size=8), rng.normal(size=(n_good, 8)), rng.normal(size=(n_bad, 8))
    found = rocchio(query, good, bad)
    assert rocchio(query, good[::-1], bad[::-1]) == pytest.approx(found, abs=1e-6)
    if n_good or n_bad:
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
        scaled = rocchio(7 * query, good * rng.uniform(0.1, 9, (n_good, 1)), bad * rng.uniform(0.1, 9, (n_bad, 1)))
        assert scaled == pytest.approx(found, abs=1e-6)
    if n_good and not n_bad:
        towards = np.mean([length_one(one) for one in good], axis=0)
        assert found @ towards >= length_one(query) @ towards - 1e-6
    if n_bad and not n_good:
        away = np.mean([length_one(one) for one in bad], axis=0)
        assert found @ away <= length_one(query) @ away + 1e-6


def test_what_leaves_nothing_is_said():
    with pytest.raises(ValueError, match="nothing is left to search for"):
        rocchio([0.3, 0.4], [], [[3, 4]], gamma=1)
    with pytest.raises(ValueError, match="nothing is left to search for"):
        rocchio([0.1, 0.2, 0.3], [[0.1, 0.2, 0.3]], [[1, 2, 3]], gamma=1.75)
    with pytest.raises(ValueError, match=r"\(1 against 1\)"):
        rocchio([0.3, 0.4], [], [[3, 5]], gamma=1, metric="euclidean")
    # The zero vector, such as that of an image without a face, has no direction; a mark gives it one.
    with pytest.raises(ValueError, match="nothing is left"):
        rocchio([0, 0], [[0, 0]], [])
    assert rocchio([0, 0], [[0, 2]], []).tolist() == [0, 1]


def test_bad_input_is_named():
    for query in ([[1, 2]], [], [1, np.nan]):
        with pytest.raises(ValueError, match="the query must be finite numbers"):
            rocchio(query, [], [])
    for marked in ([[1, 2, 3]], [1, 2], [[1, np.inf]]):
        with pytest.raises(ValueError, match=r"good results must be finite numbers of shape \(n, 2\)"):
            rocchio([1, 2], marked, [])
        with pytest.raises(ValueError, match="bad results"):
            rocchio([1, 2], [], marked)
    for name in ("alpha", "beta", "gamma"):
        for weight in (-0.1, np.nan, np.inf):
            with pytest.raises(ValueError, match=f"{name} must be"):
                rocchio([1, 2], [[1, 2]], [], **{name: weight})
    with pytest.raises(ValueError, match="no metric 'hamming'"):
        rocchio([1, 2], [[1, 2]], [], metric="hamming")


@pytest.fixture(scope="module")
def extracted():
    photos = samples.photos()
    return photos.labels, open_extractor("hsv-histogram").extract(photos, progress=False)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_marks_raise_the_precision_of_what_was_not_seen_yet(extracted, metric):
    """A person marks the first ten; ten others are evaluated, so that marked images do not count.

    It is the residual collection of Manning et al., 9.1.5. Colors know little of classes: from 0.248 to 0.267, and
    to 0.202 with all marks the wrong way round.
    """
    labels, vectors = extracted
    index = ExactIndex(metric).add(vectors)
    precisions = []
    for row, query in enumerate(vectors):
        order = [id for id in index.search(query[None], 21).ids[0].tolist() if id != row]
        seen = order[:10]
        right = [id for id in seen if labels[id] == labels[row]]
        wrong = [id for id in seen if labels[id] != labels[row]]
        found = [order[10:20]]
        for good, bad in ((right, wrong), (right, []), ([], wrong), (wrong, right)):
            moved = rocchio(query, index.vectors(good), index.vectors(bad), metric=metric)
            again = index.search(moved[None], 21).ids[0].tolist()
            found.append([id for id in again if id not in (row, *seen)][:10])
        precisions.append([np.mean(labels[ids] == labels[row]) for ids in found])
    before, marked, good, bad, swapped = np.mean(precisions, axis=0)
    assert before == pytest.approx(0.248, abs=0.005)
    assert marked > before + 0.015 and marked > max(good, bad) and min(good, bad) > before
    assert swapped < before - 0.03
