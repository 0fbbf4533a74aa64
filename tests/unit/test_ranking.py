"""Ranking: the input that it accepts, and how unsorted results become one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.search.ranking import PAD, Ranking, rank


def test_it_is_what_was_given():
    ranking = Ranking([[4, 2], [7, -1]], [[0.9, 0.5], [0.1, 0.0]])
    assert (len(ranking), ranking.k) == (2, 2)
    assert ranking.ids.tolist() == [[4, 2], [7, -1]]
    assert ranking.scores.tolist() == [[0.9, 0.5], [0.1, -np.inf]]


def test_it_is_a_read_only_copy():
    ids = np.array([[1, 2]])
    ranking = Ranking(ids, np.array([[1.0, 0.5]]))
    ids[0, 0] = 9
    assert ranking.ids[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        ranking.scores[0, 0] = 2


@pytest.mark.parametrize(
    ("ids", "scores", "message"),
    [
        ([[1, 2]], [[0.5, 0.9]], "row 0: scores must be in descending order"),
        ([[1, 2], [3, 3]], [[0.9, 0.5], [0.9, 0.5]], "row 1: an id is repeated"),
        ([[2, 1]], [[0.5, 0.5]], "row 0: equal scores must be ordered by id"),
        ([[-1, 1]], [[0.5, 0.4]], "row 0: padding precedes a result"),
        ([[1, 2]], [[0.5, np.nan]], "row 0: a score is NaN"),
        ([[1, -2]], [[0.5, 0.4]], "row 0: ids must not be negative"),
        ([1, 2], [0.5, 0.4], "must both have shape"),
        ([[1, 2]], [[0.5]], "must both have shape"),
    ],
)
def test_invalid_rankings_are_refused(ids, scores, message):
    with pytest.raises(ValueError, match=message):
        Ranking(ids, scores)


def test_head_keeps_the_first():
    ranking = Ranking([[5, 3, 1]], [[3.0, 2.0, 1.0]]).head(2)
    assert ranking.ids.tolist() == [[5, 3]]
    assert ranking.scores.tolist() == [[3.0, 2.0]]


def test_rank_sorts_by_score_then_id_and_puts_padding_last():
    ranking = rank([[9, 4, PAD, 6, 2]], [[0.5, 0.5, 7.0, -np.inf, 0.8]])
    assert ranking.ids.tolist() == [[2, 4, 9, 6, PAD]]


def test_rank_shares_ids_and_cuts():
    ranking = rank([10, 20, 30], [[0.1, 0.3, 0.2], [0.3, 0.2, 0.1]], k=2)
    assert ranking.ids.tolist() == [[20, 30], [10, 20]]


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.sampled_from([0.0, 0.5, 1.0]))
)
def test_rank_agrees_with_sorting_pairs(scores):
    ranking = rank(np.arange(scores.shape[1]), scores)
    for row, ids in zip(scores, ranking.ids, strict=True):
        assert ids.tolist() == [i for _, i in sorted((-score, i) for i, score in enumerate(row))]
