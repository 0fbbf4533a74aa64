"""Known-item recall: counted by hand, and its interval by originals."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.evaluation.intervals import wilson_interval
from helpers.evaluation.known_item import KnownItemResults, search_known_items
from helpers.images.known_items import Change
from helpers.search.ranking import PAD, Ranking

SCALED, SMALL, TURNED = Change("scale", 0.5), Change("scale", 0.25), Change("rotation", 90)

#: First result, original, change: scale 0.5 is found 2 times of 3, scale 0.25 once of 3, the rotation once of 2.
RESULTS = [
    (7, 7, SCALED), (8, 8, SCALED), (7, 9, SCALED),
    (7, 7, SMALL), (PAD, 8, SMALL), (8, 9, SMALL),
    (8, 7, TURNED), (8, 8, TURNED),
]  # fmt: skip


def results_of(lines):
    first, originals, changes = zip(*lines, strict=True)
    # The second result does not count, even if it is the original.
    second = [PAD if one == PAD else 9 for one in first]
    ids = np.column_stack([first, second])
    scores = np.where(ids == PAD, -np.inf, [2.0, 1.0])
    return KnownItemResults({"method": Ranking(ids, scores)}, np.array(originals), list(changes))


def test_by_strength_by_hand():
    table = results_of(RESULTS).by_strength()["method"]
    assert list(table.columns) == ["kind", "strength", "queries", "recall@1", "low", "high"]
    assert table[["kind", "strength"]].to_numpy().tolist() == [["scale", 0.5], ["scale", 0.25], ["rotation", 90]]
    assert table["queries"].tolist() == [3, 3, 2]
    assert table["recall@1"].tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 2])
    # Each original has one query per strength: as many originals as queries.
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx(wilson_interval(2 / 3, 3))


def test_by_kind_counts_each_original_once():
    table = results_of(RESULTS).by_kind()["method"]
    assert list(table.columns) == ["kind", "queries", "recall@1", "low", "high"]
    assert table["kind"].tolist() == ["scale", "rotation"] and table["queries"].tolist() == [6, 2]
    assert table["recall@1"].tolist() == pytest.approx([3 / 6, 1 / 2])
    # Six queries, but of three originals: the interval is that of three.
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx(wilson_interval(0.5, 3))
    assert table.loc[1, ["low", "high"]].tolist() == pytest.approx(wilson_interval(0.5, 2))


def test_repeated_queries_do_not_change_the_interval():
    once, thrice = (results_of(lines).by_strength()["method"] for lines in (RESULTS, 3 * RESULTS))
    assert thrice["queries"].tolist() == [9, 9, 6]
    assert np.allclose(thrice[["recall@1", "low", "high"]], once[["recall@1", "low", "high"]])


@pytest.mark.parametrize("recall", [KnownItemResults.by_strength, KnownItemResults.by_kind])
def test_bad_input_is_named(recall):
    results = results_of(RESULTS)
    for bad in ({"originals": results.originals[1:]}, {"changes": results.changes[1:]}):
        with pytest.raises(
            ValueError, match="one original and one change per query are needed, at least one: got 8 rows"
        ):
            recall(replace(results, **bad))
    with pytest.raises(ValueError, match="got 0 rows, 0 originals and 0 changes"):
        recall(KnownItemResults({"method": Ranking(np.empty((0, 1), np.int64), np.empty((0, 1)))}, np.array([]), []))


def test_every_method_gets_the_same_queries():
    """The searches get the same images, one change at a time, and each keeps its own results."""
    originals = [np.full((40, 60, 3), 40 * number, np.uint8) for number in range(3)]
    searched = {"right": [], "first": []}

    def search(name, results):
        def found(images):
            searched[name].append([image.copy() for image in images])
            ids = np.array(results)[:, None] + np.array([[0, 10]])
            return Ranking(ids, np.tile([1.0, 0.5], (len(images), 1)))

        return found

    methods = {"right": search("right", [0, 1, 2]), "first": search("first", [0, 0, 0])}
    results = search_known_items(methods, originals, [], [SCALED, TURNED], progress=False)
    assert [len(call) for call in searched["right"]] == [3, 3]
    assert all(
        np.array_equal(a, b)
        for one, other in zip(*searched.values(), strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert [image.shape for image in searched["right"][0]] == [(20, 30, 3)] * 3
    assert results.originals.tolist() == [0, 1, 2] * 2 and results.changes == [SCALED] * 3 + [TURNED] * 3
    assert results.rankings["first"].ids.shape == (6, 1)
    table = results.table()
    assert table.groupby("method")["recall@1"].mean().to_dict() == pytest.approx({"right": 1, "first": 1 / 3})
    assert results.by_kind()["first"]["queries"].tolist() == [3, 3]
    assert table["method"].tolist() == ["right"] * 2 + ["first"] * 2
    with pytest.raises(ValueError, match="one change are needed, got 3 originals and 0 changes"):
        search_known_items(methods, originals, [], [], progress=False)
    with pytest.raises(ValueError, match="got 0 originals and 1 changes"):
        search_known_items(methods, [], [], [SCALED], progress=False)
