"""The checks of notebook 18 accept correct solutions, and name the error of wrong ones."""

import pytest

from helpers.lessons.exercises import check_exercise


def merge(results, k):
    score_of = {one: score for ids, scores in results for one, score in zip(ids, scores, strict=True)}
    return sorted(score_of, key=lambda one: (-score_of[one], one))[:k]


def with_replicas_twice(results, k):
    pairs = [(-score, one) for ids, scores in results for one, score in zip(ids, scores, strict=True)]
    return [one for _, one in sorted(pairs)[:k]]


def in_order_of_shards(results, k):
    return list(dict.fromkeys(one for ids, _ in results for one in ids))[:k]


def lowest_first(results, k):
    return merge(results, k)[::-1]


def all_of_them(results, k):
    return merge(results, 10**6)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (0.768, "right ✓"),
        (0.512, "without links"),
        (1.28, "half precision"),
        (0.64, "2 · m links"),
        (1.0, "add the bytes"),
    ],
)
def test_the_memory_of_a_graph(value, hint, capsys):
    assert check_exercise("18.1", value) is (hint == "right ✓")
    assert hint in capsys.readouterr().out


def test_a_correct_merge_is_accepted():
    assert check_exercise("18.2", merge) is True


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (with_replicas_twice, "in the result once"),
        (in_order_of_shards, "order by score"),
        (lowest_first, "order by score"),
        (all_of_them, "ids, not"),
    ],
)
def test_a_wrong_merge_gets_a_hint(function, hint, capsys):
    assert check_exercise("18.2", function) is False
    assert hint in capsys.readouterr().out


def test_a_function_without_code_is_not_checked():
    assert check_exercise("18.2", lambda results, k: None) is None
