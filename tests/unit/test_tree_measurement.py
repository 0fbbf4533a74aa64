"""Costs of brute force and search trees: a tree skips most vectors of a plane, and none in many dimensions."""

import numpy as np
import pandas as pd
import pytest

from helpers.lessons import tree_measurement

RANDOM = np.random.default_rng(0).standard_normal((1050, 64))


def test_a_tree_compares_few_vectors_in_two_dimensions_and_all_in_many():
    share = {
        (algorithm, dim): tree_measurement.compared(algorithm, RANDOM[:1000, :dim], RANDOM[1000:, :dim], 5)
        for algorithm in tree_measurement.ALGORITHMS
        for dim in (2, 64)
    }
    assert share["brute", 2] == share["brute", 64] == share["kd_tree", 64] == 1
    # 1,000 vectors are in leaves of at most 40; a leaf is 0.03 of them.
    assert 0.03 < share["kd_tree", 2] < 0.2 < share["ball_tree", 2] < 0.9
    assert 1 < share["ball_tree", 64] < 1.2


def test_the_time_includes_the_search_and_not_the_index():
    few = tree_measurement.milliseconds("brute", RANDOM[:50], RANDOM[:100])
    many = tree_measurement.milliseconds("brute", np.tile(RANDOM, (20, 1)), RANDOM[:100])
    assert 0 < 2 * few < many


def test_measure_has_a_row_for_each_combination_and_leaves_out_missing_dimensions():
    vectors = {"short": RANDOM[:, :8], "long": RANDOM}
    table = tree_measurement.measure(vectors, (4, 16), (100, 1000), 10, k=3)
    assert len(table) == 3 * 2 * (1 + 2) and set(table[table["vectors"] == "short"]["dim"]) == {4}
    row = table.set_index(["vectors", "algorithm", "count", "dim"]).loc["long", "kd_tree", 1000, 4]
    assert row["compared"] == tree_measurement.compared("kd_tree", RANDOM[:1000, :4], RANDOM[-10:, :4], 3)
    assert (table["milliseconds"] > 0).all()


def test_measure_needs_more_vectors_than_queries_and_gallery():
    with pytest.raises(ValueError, match="1041 vectors and 10 queries are needed, got 1050 rows"):
        tree_measurement.measure({"short": RANDOM}, (2,), (1041,), 10)


def test_the_summary_names_the_fastest_algorithm():
    lines = [
        ("a", "brute", 2, 3.0, 1.0), ("a", "kd_tree", 2, 1.0, 0.0184), ("a", "ball_tree", 2, 2.0, 0.1),
        ("a", "brute", 512, 1.0, 1.0), ("a", "kd_tree", 512, 9.0, 1.0), ("a", "ball_tree", 512, 8.0, 1.03),
        ("b", "brute", 2, 1.0, 1.0), ("b", "kd_tree", 2, 2.0, 0.5), ("b", "ball_tree", 2, 0.5, 0.6),
    ]  # fmt: skip
    table = pd.DataFrame(lines, columns=["vectors", "algorithm", "dim", "milliseconds", "compared"])
    shown = tree_measurement.summary(table, "dim", "vectors")
    assert shown.columns.tolist() == ["vectors", "", 2, 512]
    assert shown.to_numpy().tolist() == [
        ["a", "kd_tree: distances computed", "0.018", "1.000"],
        ["a", "ball_tree: distances computed", "0.100", "1.030"],
        ["a", "fastest", "kd_tree", "brute"],
        ["b", "kd_tree: distances computed", "0.500", "–"],
        ["b", "ball_tree: distances computed", "0.600", "–"],
        ["b", "fastest", "ball_tree", "–"],
    ]
