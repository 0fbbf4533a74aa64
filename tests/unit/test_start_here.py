"""Helpers of notebook 00: the table of downloads, and the checks of its exercises."""

import nbformat
import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from helpers import paths
from helpers.lessons import machine
from helpers.lessons.exercises import check_exercise


def search(vectors, query, k):
    """A correct solution."""
    scores = cosine_similarity(vectors[query : query + 1], vectors)[0]
    return [row for row in np.argsort(-scores) if row != query][:k]


def by_product(vectors, query, k):
    """Forgets to normalize the vectors."""
    return [row for row in np.argsort(-(vectors @ vectors[query])) if row != query][:k]


def test_downloads_are_those_of_the_first_archives():
    table = machine.downloads().set_index("data set")
    assert table.index.tolist() == ["lfw", "imagenette", "caltech101", "cifar10"]
    assert table.loc["cifar10"].tolist() == ["cifar-10-python.tar.gz", 170, "www.cs.toronto.edu"]
    assert table.loc["imagenette"].tolist() == ["imagenette2-320.tgz", 342, "s3.amazonaws.com"]
    assert table["MB"].sum() == 181 + 342 + 137 + 170


def test_the_size_of_the_downloads_is_stated_as_the_code_has_it():
    size = machine.downloads()["MB"].sum()
    assert f"| all | | {size} | |" in (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"all four data sets: {size} MB" in (paths.ROOT / "notebooks/00_start_here.ipynb").read_text("utf-8")


def test_the_picker_stands_in_the_upper_third():
    cells = nbformat.read(paths.ROOT / "notebooks/00_start_here.ipynb", 4).cells
    first = next(row for row, cell in enumerate(cells) if "show(picker" in cell.source)
    lines = [len(cell.source.splitlines()) for cell in cells]
    assert 3 * sum(lines[:first]) < sum(lines)


@pytest.mark.parametrize(
    ("solution", "right"),
    [(34 / 418, True), (0.081, True), (35 / 419, False), (0.08, False), (34, False), (None, None)],
)
def test_chance_of_a_first_result(solution, right):
    """35 of the 419 images are birds."""
    assert check_exercise("00.1", solution) is right


@pytest.mark.parametrize(
    ("solution", "right"),
    [
        (search, True),
        (by_product, False),
        (lambda vectors, query, k: search(vectors, query, k)[::-1], False),
        (lambda vectors, query, k: [query, *search(vectors, query, k)][:k], False),
        (lambda vectors, query, k: None, None),
    ],
)
def test_search(solution, right):
    assert check_exercise("00.2", solution) is right
