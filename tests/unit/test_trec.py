"""TREC files: trec_eval must use the order of the ranking, also for ties."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import pytrec_eval

from helpers.evaluation.builders import leave_one_out
from helpers.evaluation.metrics import evaluate
from helpers.evaluation.trec import write_qrels, write_run
from helpers.images.imageset import ImageSet
from helpers.search.ranking import Ranking, rank

#: Keys that must be encoded in a run file: spaces, a percent sign, letters beyond ASCII, a no-break space, bytes that
#: are not UTF-8.
ODD = (
    "two words.jpg", "100%.jpg", "100%25.jpg", "Zoë/été.jpg", "no\u00a0break.jpg", "tab\there.jpg", "line\u2028end",
    "caf\udce9.jpg",
)  # fmt: skip


def protocol(n: int = 24, classes: int = 3, keys=ODD):
    keys = (*keys, *(f"{i:03d}.jpg" for i in range(n - len(keys))))
    labels = np.arange(n) % classes
    labels[-1] = -1
    images = ImageSet("toy", tuple(map(Path, keys)), labels, tuple(f"c{i}" for i in range(classes)))
    return leave_one_out(images, "toy")


def results(toy, seed: int, values: int) -> Ranking:
    """Rankings of all candidates, with the given number of different scores."""
    rng = np.random.default_rng(seed)
    rows = [np.setdiff1d(toy.gallery, [query]) for query in toy.queries]
    return rank(np.stack(rows), rng.integers(0, values, (len(rows), len(rows[0]))).astype(float))


@pytest.mark.parametrize("values", [1, 3, 10**6])
@pytest.mark.parametrize("seed", range(3))
def test_trec_eval_computes_the_same_scores_from_the_files(tmp_path, seed, values):
    toy = protocol()
    ranking = results(toy, seed, values)
    scores = evaluate(ranking, toy)
    write_run(ranking, toy, tmp_path / "run.txt", tag="a method")
    write_qrels(toy, tmp_path / "qrels.txt")
    # Read with trec_eval's own parser.
    with (tmp_path / "run.txt").open() as file:
        run = pytrec_eval.parse_run(file)
    with (tmp_path / "qrels.txt").open() as file:
        qrels = pytrec_eval.parse_qrel(file)
    measures = {"map", "map_cut.10", "ndcg_cut.10", "success.1,5", "P.3,10", "recall.3,10"}
    expected = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    assert len(expected) == scores.n_queries == 23
    names = {
        "mAP": "map",
        "mAP@10": "map_cut_10",
        "nDCG@10": "ndcg_cut_10",
        "top-1": "success_1",
        "top-5": "success_5",
        "precision@3": "P_3",
        "precision@10": "P_10",
        "recall@3": "recall_3",
        "recall@10": "recall_10",
    }
    order = [line.split()[0] for line in (tmp_path / "run.txt").read_text().splitlines()][:: ranking.k]
    for metric, name in names.items():
        values = [expected[query][name] for query in order]
        np.testing.assert_allclose(scores.values[metric], values, atol=1e-6, err_msg=metric)


def test_similarities_in_the_score_column_would_change_the_order():
    # trec_eval breaks ties from Z to A, and stores scores as float32.
    qrels = {"q": {"a": 1}}
    judge = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"})
    assert judge.evaluate({"q": {"a": 1.0, "b": 1.0}})["q"]["recip_rank"] == 0.5
    assert judge.evaluate({"q": {"a": 1.0 + 1e-9, "b": 1.0}})["q"]["recip_rank"] == 0.5
    assert judge.evaluate({"q": {"a": 2.0, "b": 1.0}})["q"]["recip_rank"] == 1


def test_a_run_file_has_the_standard_columns(tmp_path):
    toy = protocol(4, 2, keys=("a b.jpg",))
    # 0 and 2 have one class, 1 is alone, 3 has none: 0 and 2 are queries.
    path = write_run(
        Ranking([[2, 1, 3], [1, -1, -1]], [[3.0, 2, 1], [3.0, 0, 0]]), toy, tmp_path / "run.txt", "SIFT + VLAD"
    )
    assert path.read_text() == (
        "a%20b.jpg Q0 001.jpg 1 3 SIFT%20%2B%20VLAD\n"
        "a%20b.jpg Q0 000.jpg 2 2 SIFT%20%2B%20VLAD\n"
        "a%20b.jpg Q0 002.jpg 3 1 SIFT%20%2B%20VLAD\n"
        "001.jpg Q0 000.jpg 1 3 SIFT%20%2B%20VLAD\n"
    )


def read_qrels(path):
    with path.open() as file:
        qrels = pytrec_eval.parse_qrel(file)
    key = partial(unquote, errors="surrogateescape")
    return {key(query): {key(result): value for result, value in of.items()} for query, of in qrels.items()}


def test_qrels_contain_the_relevant_images_only(tmp_path):
    toy = protocol()
    qrels = read_qrels(write_qrels(toy, tmp_path / "qrels.txt"))
    assert qrels == {
        toy.keys[query]: {toy.keys[result]: 1 for result in toy.relevant(row)} for row, query in enumerate(toy.queries)
    }
    assert set(ODD) <= set(qrels)


def test_queries_without_a_relevant_image_are_not_in_the_qrels(tmp_path):
    images = ImageSet("toy", (Path("a"), Path("b"), Path("c")), np.array([0, 0, 1]), ("x", "y"))
    toy = replace(leave_one_out(images, "toy"), queries=[0, 2])
    assert read_qrels(write_qrels(toy, tmp_path / "qrels.txt")) == {"a": {"b": 1}}


def test_a_ranking_of_other_queries_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="23 queries, but the ranking has 1 rows"):
        write_run(Ranking([[1]], [[1.0]]), protocol(), tmp_path / "run.txt")
    assert not (tmp_path / "run.txt").exists()
