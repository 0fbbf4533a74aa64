"""Metrics: worked by hand, compared with trec_eval, and chance levels by simulation."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers.evaluation import protocol as protocol_module
from helpers.evaluation.builders import leave_one_out, query_gallery
from helpers.evaluation.metrics import (
    LeakyRanking,
    NoRelevantImageWarning,
    average_precision,
    average_precision_over_hits,
    confusion,
    evaluate,
    per_class,
    relevance_mask,
)
from helpers.evaluation.protocol import Protocol
from helpers.evaluation.runner import excluding
from helpers.images.imageset import ImageSet
from helpers.search.ranking import Ranking, rank


def images(labels, groups=None) -> ImageSet:
    labels = np.asarray(labels, dtype=np.int64)
    names = tuple(f"class{i}" for i in range(labels.max(initial=-1) + 1))
    return ImageSet("toy", tuple(Path(f"{i:04d}.jpg") for i in range(len(labels))), labels, names, groups)


def one_query(hits, n_candidates: int | None = None, n_relevant: int | None = None) -> tuple[Ranking, Protocol]:
    """A ranking of one query (id 0) with these hits; the candidates not in it are misses but for the missing hits."""
    hits = np.asarray(hits, dtype=bool)
    n_candidates = n_candidates or len(hits)
    unseen = np.zeros(n_candidates - len(hits), dtype=bool)
    unseen[: (n_relevant or hits.sum()) - hits.sum()] = True
    labels = np.concatenate([[True], hits, unseen]).astype(np.int64) - 1
    toy = query_gallery(images(labels), [0], np.arange(1, n_candidates + 1), "toy")
    ids = np.arange(1, len(hits) + 1)[None]
    return Ranking(ids, -ids.astype(float)), toy


def random_case(seed: int, tied: bool) -> tuple[Ranking, Protocol]:
    """40 images, 25 queries, groups and exclusions; scores with many ties or none."""
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(-1, 4, 40), rng.integers(-1, 12, 40)
    queries, gallery = rng.permutation(40)[:25], np.sort(rng.permutation(40)[:30])
    toy = query_gallery(
        images(labels, groups), queries, gallery, "toy", excluded={int(queries[0]): tuple(gallery[:3].tolist())}
    )
    scores = rng.integers(0, 4, (25, 30)).astype(float) if tied else rng.random((25, 30))
    return excluding(rank(gallery, scores), toy), toy


def quietly(ranking, toy, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoRelevantImageWarning)
        return evaluate(ranking, toy, **arguments)


# ---- worked by hand --------------------------------------------------------------------------------


def test_every_metric_worked_by_hand():
    # Hits at ranks 1 and 4 of 12 candidates, R = 5: the other three are at ranks 7, 9 and 12.
    hits = np.zeros(12, dtype=bool)
    hits[[0, 3, 6, 8, 11]] = True
    scores = evaluate(*one_query(hits))
    expected = {
        "top-1": 1,
        "top-5": 1,
        "precision@1": 1,
        "precision@3": 1 / 3,
        "precision@5": 2 / 5,
        "precision@10": 4 / 10,
        "recall@1": 1 / 5,
        "recall@5": 2 / 5,
        "recall@10": 4 / 5,
        # 1/1, 2/4, 3/7, 4/9, 5/12
        "mAP": (1 + 1 / 2 + 3 / 7 + 4 / 9 + 5 / 12) / 5,
        "mAP@10": (1 + 1 / 2 + 3 / 7 + 4 / 9) / 5,
        "mAP@10 normalized": (1 + 1 / 2 + 3 / 7 + 4 / 9) / 5,
        # 1/log2(2) + 1/log2(5) + 1/log2(8) + 1/log2(10), over the first five discounts
        "nDCG@10": (1 + 0.430677 + 1 / 3 + 0.301030) / (1 + 0.630930 + 0.5 + 0.430677 + 0.386853),
    }
    for name, value in expected.items():
        assert scores.mean(name) == pytest.approx(value, abs=1e-6), name
    assert scores.metrics[:4] == ("top-1", "top-3", "top-5", "top-10")


def test_average_precision_by_its_names():
    hits = [True, False, False, True, False]
    assert average_precision(hits, 5) == pytest.approx(0.30)  # (1/1 + 2/4) / 5
    assert average_precision(hits, 5, k=3) == pytest.approx(0.20)  # 1 / 5
    assert average_precision(hits, 5, k=3, normalized=True) == pytest.approx(1 / 3)  # 1 / min(5, 3)
    assert average_precision(hits, 2, k=3, normalized=True) == pytest.approx(0.5)  # 1 / min(2, 3)
    assert average_precision(hits, 5, k=100) == pytest.approx(0.30)
    assert average_precision([], 3) == 0
    assert average_precision_over_hits(hits) == pytest.approx(0.75)  # the wrong one
    assert average_precision_over_hits([False, False]) == 0


def test_the_wrong_average_precision_can_rise_if_a_hit_is_lost():
    fewer, more = [True, False, False, False], [True, False, False, True]
    assert average_precision_over_hits(fewer) > average_precision_over_hits(more)
    assert average_precision(fewer, 5) < average_precision(more, 5)


@pytest.mark.parametrize("arguments", [([True], 0), ([True, True], 1), ([True], 1, None, True)])
def test_undefined_average_precision_is_refused(arguments):
    with pytest.raises(ValueError, match=r"R must be at least 1|give k"):
        average_precision(*arguments)


@pytest.mark.parametrize("k", [0, -1])
@pytest.mark.parametrize("normalized", [False, True])
def test_average_precision_needs_a_rank(k, normalized):
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        average_precision([True, False], 1, k, normalized)


def test_cifar_caps_map_at_100_at_two_per_cent():
    # 5000 of 50,000 are relevant and the first 100 results are all relevant: 100 / 5000.
    ranking, toy = one_query(np.ones(100), n_candidates=50_000, n_relevant=5000)
    scores = evaluate(ranking, toy, ks=(1,), map_ks=(100,))
    assert scores.mean("mAP@100") == scores.mean_ceiling("mAP@100") == pytest.approx(0.02)
    assert scores.mean("mAP@100 normalized") == scores.mean_ceiling("mAP@100 normalized") == 1
    # (1/100) · (5000/50000) · (H + (100 - H) · 4999/49999), H = 1 + 1/2 + … + 1/100 = 5.18738
    assert scores.mean_chance("mAP@100 normalized") == pytest.approx(0.0146669, abs=1e-7)


# ---- trec_eval -------------------------------------------------------------------------------------

OURS_TO_TREC = {"mAP": "map", "mAP@10": "map_cut_10", "mAP@5": "map_cut_5", "nDCG@10": "ndcg_cut_10"} | {
    f"{ours}{k}": f"{trec}_{k}"
    for k in (1, 3, 5, 10, 20)
    for ours, trec in (("top-", "success"), ("precision@", "P"), ("recall@", "recall"))
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_trec_eval_agrees(seed, tied):
    ranking, toy = random_case(seed, tied)
    scores = quietly(ranking, toy, ks=(1, 3, 5, 10, 20), map_ks=(5, 10))
    # Ranks instead of scores: trec_eval breaks ties in another way.
    run = {
        str(row): {str(result): float(-place) for place, result in enumerate(ids[ids >= 0])}
        for row, ids in enumerate(ranking.ids)
    }
    qrels = {str(row): {str(result): 1 for result in toy.relevant(row)} for row in np.flatnonzero(toy.has_relevant)}
    judge = pytrec_eval.RelevanceEvaluator(
        qrels, {"map", "map_cut.5,10", "ndcg_cut.10", "success.1,3,5,10,20", "P.1,3,5,10,20", "recall.1,3,5,10,20"}
    )
    judged = judge.evaluate({query: run[query] for query in qrels})
    assert len(judged) == scores.n_queries > 10
    for ours, trec in OURS_TO_TREC.items():
        expected = [judged[str(row)][trec] for row in scores.rows]
        np.testing.assert_allclose(scores.values[ours], expected, atol=1e-6, err_msg=ours)


# ---- chance and ceiling ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "r"), [(1, 1), (5, 1), (12, 4), (12, 12), (30, 25), (40, 2)])
def test_chance_is_the_mean_of_random_orders(n, r):
    rng = np.random.default_rng(n * 100 + r)
    draws = 4000
    # One protocol of many queries with R = r and N = n, each with its own order.
    labels = np.concatenate([np.zeros(draws, dtype=np.int64), np.arange(n) >= r])
    toy = query_gallery(images(labels), np.arange(draws), np.arange(draws, draws + n), "toy")
    ids = rng.permuted(np.tile(np.arange(draws, draws + n), (draws, 1)), axis=1)
    scores = evaluate(Ranking(ids, np.tile(-np.arange(n, dtype=float), (draws, 1))), toy)
    assert len(scores.metrics) == 16
    for name in scores.metrics:
        # 1 / draws: an event that was not drawn has no standard deviation.
        tolerance = 4.5 * scores.values[name].std() / np.sqrt(draws) + 1 / draws
        assert scores.mean(name) == pytest.approx(scores.mean_chance(name), abs=tolerance), name


def test_chance_worked_by_hand():
    # Two candidates, one relevant: rank 1 or rank 2, so AP is 1 or 1/2.
    scores = evaluate(*one_query([True, False]))
    assert scores.mean_chance("mAP") == pytest.approx(0.75)
    assert scores.mean_chance("top-1") == pytest.approx(0.5)
    assert scores.mean_chance("top-3") == pytest.approx(1)
    assert scores.mean_chance("precision@10") == pytest.approx(0.1)
    assert scores.mean_chance("nDCG@10") == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_chance_does_not_overflow_in_a_large_gallery():
    # 20,000! exceeds any float; with so many images, draws without replacement are nearly independent.
    ranking, toy = one_query(np.ones(10), n_candidates=20_000, n_relevant=10_000)
    scores = evaluate(ranking, toy)
    assert scores.mean_chance("top-10") == pytest.approx(1 - 0.5**10, abs=1e-5)
    assert scores.mean_chance("top-1") == pytest.approx(0.5, abs=1e-9)


hit_lists = st.lists(st.booleans(), min_size=1, max_size=25).filter(any)


@given(hit_lists)
@settings(max_examples=60, deadline=None)
def test_a_perfect_ranking_reaches_the_ceiling(hits):
    scores = evaluate(*one_query(sorted(hits, reverse=True)))
    for name in scores.metrics:
        assert scores.mean(name) == pytest.approx(scores.mean_ceiling(name)), name


@given(hit_lists)
@settings(max_examples=60, deadline=None)
def test_every_metric_and_its_chance_lie_between_zero_and_the_ceiling(hits):
    scores = evaluate(*one_query(hits))
    for name in scores.metrics:
        assert 0 <= scores.mean(name) <= scores.mean_ceiling(name) + 1e-12, name
        assert 0 <= scores.mean_chance(name) <= scores.mean_ceiling(name) + 1e-9, name


@given(hit_lists, st.data())
@settings(max_examples=60, deadline=None)
def test_moving_a_hit_up_never_lowers_a_metric(hits, data):
    place = data.draw(st.sampled_from(np.flatnonzero(hits).tolist()))
    assume(place > 0)
    above = data.draw(st.integers(0, place - 1))
    better = hits.copy()
    better.insert(above, better.pop(place))
    worse_scores, better_scores = evaluate(*one_query(hits)), evaluate(*one_query(better))
    for name in worse_scores.metrics:
        assert better_scores.mean(name) >= worse_scores.mean(name) - 1e-12, name


def test_the_order_of_the_gallery_does_not_matter():
    ranking, toy = random_case(3, tied=True)
    turned = query_gallery(
        images(toy.labels, toy.groups), toy.queries, toy.gallery[::-1], "turned", excluded=toy.excluded
    )
    a, b = quietly(ranking, toy), quietly(ranking, turned)
    for name in a.metrics:
        np.testing.assert_array_equal(a.values[name], b.values[name])


def test_chunks_do_not_change_the_scores(monkeypatch):
    ranking, toy = random_case(1, tied=False)
    whole = quietly(ranking, toy)
    monkeypatch.setattr(protocol_module, "CHUNK", 1)  # one query at a time
    pieces = quietly(ranking, toy)
    for name in whole.metrics:
        np.testing.assert_array_equal(whole.values[name], pieces.values[name])


# ---- undefined metrics and invalid rankings --------------------------------------------------------


def test_an_undefined_metric_is_left_out():
    ranking, toy = one_query([True] + [False] * 29)
    assert "mAP" in evaluate(ranking, toy).metrics
    short = evaluate(ranking.head(7), toy)
    assert not {"mAP", "top-10", "precision@10", "recall@10", "mAP@10", "nDCG@10"} & set(short.metrics)
    assert {"top-5", "precision@5", "recall@5"} <= set(short.metrics)
    with pytest.raises(KeyError, match="'mAP' was not computed; there are: top-1"):
        short.mean("mAP")


def test_map_is_left_out_if_a_query_has_more_candidates_than_columns():
    toy = leave_one_out(images([0, 0, 0, 0], groups=[1, 1, -1, -1]), "toy")  # 2, 2, 3 and 3 candidates
    ids = np.array([[2, 3, -1], [2, 3, -1], [0, 1, 3], [0, 1, 2]])
    ranking = Ranking(ids, np.tile([3.0, 2, 1], (4, 1)))
    assert "mAP" in evaluate(ranking, toy).metrics
    assert "mAP" not in evaluate(ranking.head(2), toy).metrics


def test_relevant_images_that_an_index_did_not_find_count_as_missed():
    # An approximate index stops early: one hit of R = 3 at rank 1, then padding.
    toy = query_gallery(images([0, 0, 0, 0, -1]), [0], [1, 2, 3, 4], "toy")
    scores = evaluate(Ranking([[1, 4, -1, -1]], [[2.0, 1, 0, 0]]), toy)
    assert scores.mean("mAP") == scores.mean("mAP@10") == pytest.approx(1 / 3)
    assert scores.mean("recall@10") == pytest.approx(1 / 3)


def test_a_ranking_of_all_candidates_is_complete_even_if_k_is_larger():
    scores = evaluate(*one_query([False, True]), ks=(1, 10))
    assert scores.mean("precision@10") == pytest.approx(0.1)
    assert scores.mean("mAP") == pytest.approx(0.5)


def test_queries_without_a_relevant_image_are_left_out_with_a_warning():
    # 0 and 1 are cats; 2 is alone in its class; 3 has none.
    toy = replace(leave_one_out(images([0, 0, 1, -1]), "toy"), queries=[0, 2, 3, 1])
    ranking = Ranking([[1, 2, 3], [0, 1, 3], [0, 1, 2], [2, 0, 3]], [[3.0, 2, 1]] * 4)
    with pytest.warns(NoRelevantImageWarning, match="2 of 4 queries have no relevant image") as caught:
        scores = evaluate(ranking, toy)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert scores.n_without_relevant == 2
    assert scores.rows.tolist() == [0, 3]
    assert scores.values["top-1"].tolist() == [1, 0]
    assert scores.mean("top-1") == 0.5


def test_no_warning_if_all_queries_have_a_relevant_image():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(*one_query([True]))


def test_nothing_to_score_is_an_error():
    toy = leave_one_out(images([0, 0], groups=[1, 1]), "toy")
    with pytest.raises(ValueError, match="no query has a relevant image"):
        evaluate(Ranking([[-1], [-1]], [[0.0], [0.0]]), toy)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (0, "'0000.jpg' has the result '0000.jpg' at rank 2, which is ignored"),  # the query itself
        (1, "'0000.jpg' has the result '0001.jpg' at rank 2, which is ignored"),  # its copy
        (2, "'0000.jpg' has the result '0002.jpg' at rank 2, which is ignored"),  # excluded for it
        (4, "'0000.jpg' has the result '0004.jpg' at rank 2, which is not in the gallery"),
        (9, "id 9 is unknown; ids end at 5"),
    ],
)
def test_a_leak_is_an_error_and_names_the_query(result, message):
    toy = query_gallery(images([0] * 6, groups=[3, 3, -1, -1, -1, -1]), [0], [0, 1, 2, 3, 5], "toy", excluded={0: [2]})
    leaky = Ranking([[3, result]], [[2.0, 1.0]])
    for score in (evaluate, confusion, relevance_mask):
        assert score(Ranking([[3, 5]], [[2.0, 1.0]]), toy) is not None
    with pytest.raises(LeakyRanking, match=message):
        evaluate(leaky, toy, ks=(1,), map_ks=())


def test_rows_that_are_not_the_queries_are_refused():
    ranking, toy = one_query([True, False])
    twice = Ranking(np.repeat(ranking.ids, 2, axis=0), np.repeat(ranking.scores, 2, axis=0))
    for score in (evaluate, confusion, relevance_mask):
        with pytest.raises(ValueError, match="1 queries, but the ranking has 2 rows"):
            score(twice, toy)
    with pytest.raises(ValueError, match="k must be at least 1"):
        evaluate(ranking, toy, ks=(0, 1))


# ---- tables ----------------------------------------------------------------------------------------


def test_the_table_holds_value_chance_ceiling_and_interval():
    scores = quietly(*random_case(2, tied=False))
    table = scores.table().set_index("metric")
    assert list(table.columns) == ["value", "low", "high", "chance", "ceiling"]
    assert tuple(table.index) == scores.metrics
    row = table.loc["mAP"]
    assert row["value"] == scores.values["mAP"].mean()
    assert row["chance"] == scores.chances["mAP"].mean()
    assert row["low"] < row["value"] < row["high"] <= row["ceiling"] == 1


def test_confusion_counts_first_results():
    # 0 1: cats, 2 3: dogs, 4: of no class. First results: dog, cat, dog, of no class.
    toy = query_gallery(images([0, 0, 1, 1, -1]), [0, 1, 2, 3], np.arange(5), "toy")
    ranking = Ranking([[2, 1], [0, 2], [3, 0], [4, 0]], [[2.0, 1.0]] * 4)
    counts = confusion(ranking, toy)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 1]]
    assert counts.dtype == np.int64
    assert counts.trace() / counts.sum() == evaluate(ranking, toy, ks=(1,), map_ks=()).mean("top-1")
    assert relevance_mask(ranking, toy).tolist() == [[False, True], [True, False], [True, False], [False, False]]


def test_confusion_of_a_leaking_ranking_is_refused():
    toy = leave_one_out(images([0, 0]), "toy")
    with pytest.raises(LeakyRanking, match="which is ignored"):
        confusion(Ranking([[0], [1]], [[1.0], [1.0]]), toy)


def test_confusion_leaves_out_queries_without_any_result():
    toy = leave_one_out(images([0, 0]), "toy")
    assert confusion(Ranking([[1], [-1]], [[1.0], [0.0]]), toy).tolist() == [[1, 0]]


def test_per_class_means():
    # Cats: first result right, wrong; dogs: right, right. The only image of class 2 is no query.
    toy = leave_one_out(images([0, 0, 1, 1, 2]), "toy")
    ranking = Ranking([[1], [2], [3], [2]], [[1.0]] * 4)
    table = per_class(evaluate(ranking, toy, ks=(1,), map_ks=()), toy, "top-1")
    assert table["class"].tolist() == ["class0", "class1"]
    assert table["queries"].tolist() == [2, 2]
    assert table["mean"].tolist() == [0.5, 1.0]
