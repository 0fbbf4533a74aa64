"""Rerankers compared: the same first results for every method, gains per query, and no query in its own gallery."""

from pathlib import Path

import numpy as np
import pytest

from helpers.evaluation import builders, metrics
from helpers.evaluation.intervals import format_p_value, paired_difference
from helpers.images.imageset import ImageSet
from helpers.lessons.reranker_comparison import compare_rerankers, first_search
from helpers.search.ranking import Ranking, rank
from helpers.search.rerank.expansion import average_query_expansion


def image_set(labels):
    root = Path("/nowhere")
    names = tuple(f"class{i}" for i in range(max(labels) + 1))
    return ImageSet(
        "toy", tuple(root / f"{i:03d}.jpg" for i in range(len(labels))), np.array(labels), names, None, root
    )


@pytest.fixture(scope="module")
def case():
    """Two classes, a third of the images are queries. The vectors are random, so no order is perfect."""
    images = image_set([0] * 18 + [1] * 18)
    vectors = np.random.default_rng(3).normal(size=(36, 4)).astype(np.float32)
    protocol = builders.disjoint_split(images, "toy")
    return protocol, vectors, first_search(protocol, vectors)


def reversed_order(found):
    """The last result first."""
    return rank(found.ranking.ids, -found.ranking.scores)


def perfect(found):
    return rank(found.ranking.ids, metrics.relevance_mask(found.ranking, found.protocol).astype(float))


def test_a_first_search_has_the_results_of_queries_and_gallery_images(case):
    protocol, vectors, found = case
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit[protocol.queries] @ unit[protocol.gallery].T
    assert np.array_equal(found.ranking.ids, protocol.gallery[np.argsort(-cosine, axis=1)])
    among = unit[protocol.gallery] @ unit[protocol.gallery].T
    assert np.array_equal(found.neighbors.ids, protocol.gallery[np.argsort(-among, axis=1)])
    assert np.array_equal(found.neighbors.ids[:, 0], found.ids)
    assert np.array_equal(found.queries, vectors[protocol.queries])
    assert first_search(protocol, vectors, columns=5).neighbors.k == 5


def test_queries_in_the_gallery_are_refused(case):
    _, vectors, _ = case
    with pytest.raises(ValueError, match="all: 36 of 36 queries"):
        first_search(builders.leave_one_out(image_set([0] * 18 + [1] * 18), "all"), vectors)


def test_gains_are_differences_per_query(case):
    _, _, found = case
    comparison = compare_rerankers(
        {"toy": found}, {"perfect": perfect, "same": lambda f: f.ranking, "reversed": reversed_order}
    )
    before = metrics.evaluate(found.ranking, found.protocol).values["mAP"]
    assert np.allclose(comparison.gains("toy", "perfect"), 1 - before)
    assert not comparison.gains("toy", "same").any()
    worst = metrics.evaluate(reversed_order(found), found.protocol).values["mAP"]
    assert np.allclose(comparison.gains("toy", "reversed"), worst - before)
    assert all(spent >= 0 for spent in comparison.milliseconds.values())


def test_the_table_has_paired_intervals_and_holms_p(case):
    protocol, vectors, found = case
    other = first_search(protocol, vectors[:, :2])
    methods = {
        "perfect": perfect,
        "expansion": lambda f: average_query_expansion(f.ranking, f.queries, f.gallery, ids=f.ids),
    }
    comparison = compare_rerankers({"four": found, "two": other}, methods)
    table = comparison.table(seed=5)
    assert list(zip(table["task"], table["method"], strict=True)) == [
        ("four", "perfect"), ("four", "expansion"), ("two", "perfect"), ("two", "expansion"),
    ]  # fmt: skip
    row = table.iloc[1]
    after = comparison.after["four", "expansion"].values["mAP"]
    test = paired_difference(after, comparison.before["four"].values["mAP"], seed=5)
    assert (row["gain"], row["low"], row["high"]) == (test.difference, test.low, test.high)
    assert row["after"] - row["before"] == pytest.approx(row["gain"])
    # Four tests: the smallest possible p of one, 1/2001, counts four times.
    assert table["p"].iloc[0] == pytest.approx(4 / 2001)
    assert table["queries"].tolist() == [12] * 4
    first = comparison.table("top-1", seed=5).iloc[0]
    assert first["after"] == 1 and first["before"] == comparison.before["four"].mean("top-1")


def test_a_clear_gain_is_significant_among_many_tests(case):
    _, _, found = case
    table = compare_rerankers({"toy": found}, {f"perfect {number}": perfect for number in range(30)}).table()
    assert len(table) == 30 and format_p_value(table["p"].max()) == "< 0.01"


def test_by_class_whole_classes_are_drawn(case):
    _, _, found = case
    comparison = compare_rerankers({"toy": found}, {"reversed": reversed_order})
    row = comparison.table(by_class=True, seed=1).iloc[0]
    gains = comparison.gains("toy", "reversed")
    labels = found.protocol.labels[found.protocol.queries]
    # Two classes have three kinds of draws: both, or one of them twice.
    means = [gains[labels == label].mean() for label in (0, 1)]
    assert row["low"] == pytest.approx(min(means)) and row["high"] == pytest.approx(max(means))


def test_a_method_that_drops_or_adds_results_is_refused(case):
    _, _, found = case
    with pytest.raises(ValueError, match="cut on toy added or dropped"):
        compare_rerankers({"toy": found}, {"cut": lambda f: f.ranking.head(5)})

    def swapped(f):
        ids = f.ranking.ids.copy()
        ids[0, -1] = f.protocol.queries[0]
        return Ranking(ids, f.ranking.scores)

    with pytest.raises(ValueError, match="swapped on toy"):
        compare_rerankers({"toy": found}, {"swapped": swapped})
