"""A second look at the answers, by name: what a person chooses from a list, or a command line takes as an option.

Each name does to one query what a module beside this one does to many: it asks again with a better question
(`expansion`), or puts the first `SHORT` answers into another order (`reciprocal`, `diffusion`, `reranking`). The work
is bounded by that short list, whatever the gallery's size: neighbours are counted within it. What lies behind the short
list keeps its former order.

All ask the vectors that the engine's index keeps. One that keeps codes gives what they stand for, and so the second
look is as coarse as they are.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helpers.features.keypoints import extract, extract_set
from helpers.pictures.reading import resize
from helpers.search.backends.exact import ExactIndex
from helpers.search.diffusion import diffused
from helpers.search.engine import Engine
from helpers.search.expansion import expanded_queries, rescored
from helpers.search.index import check_k
from helpers.search.ranking import PAD, Ranking
from helpers.search.reciprocal import k_reciprocal
from helpers.search.reranking import verified

#: Answers that are put into another order, at most.
SHORT = 100
#: Answers whose keypoints are looked for: each is read from its file, which takes far longer than all else here.
VERIFIED = 50
#: Longest side in pixels at which keypoints are looked for.
_SIDE = 640

#: As their modules have them by default.
_EXPANSION = {"expansion": {"top": 2, "alpha": 0}, "alpha-expansion": {"top": 5, "alpha": 3}}
_K1, _K2 = 20, 6
_NEIGHBOURS = 10


class SecondLook(NamedTuple):
    """One of the names.

    Attributes
    ----------
    sentence : what it does, for a person.
    metrics : of the indexes that it can follow.
    needs_picture : whether it has to see the query's pixels.
    """

    sentence: str
    metrics: tuple[str, ...] = ("cosine",)
    needs_picture: bool = False


_ALL = ("cosine", "euclidean", "manhattan")

#: Name → what it is.
SECOND_LOOKS = {
    "none": SecondLook("Answers stay as the index found them.", _ALL),
    "expansion": SecondLook("Searches again with the mean of the query and its first two answers."),
    "alpha-expansion": SecondLook(
        "Searches again with the query and its first five answers, of which near ones count far more."
    ),
    "k-reciprocal": SecondLook(
        "Prefers answers that share their near neighbours with the query, where both have each other among them."
    ),
    "diffusion": SecondLook(
        "Prefers answers that a chain of pictures, each like the next, connects with the best ones."
    ),
    "keypoints": SecondLook(
        "Puts those first that show the very same thing: their keypoints lie as the query's do, turned or cropped.",
        _ALL,
        needs_picture=True,
    ),
}
NAMES = tuple(SECOND_LOOKS)


def second_look(
    engine: Engine,
    vector: np.ndarray,
    k: int = 10,
    name: str = "none",
    exclude: Iterable[int | str | Path] | None = None,
    picture: np.ndarray | None = None,
) -> Ranking:
    """The ``k`` best answers of an engine to one query, after a second look at them.

    Where the query itself, or a copy of it, stands in the gallery, exclude it: for all but ``none`` it would be a
    neighbour of its own answers, and tell for them.

    Parameters
    ----------
    vector : float (dim,), the query as the engine's describer gives it.
    name : one of `NAMES`.
    exclude : ids, keys or paths of gallery pictures that must not be among the answers, nor have a say in them.
    picture : uint8 (height, width, 3) RGB, the query itself; only ``keypoints`` looks at it.

    Returns
    -------
    Ranking (1, k): ids of the engine's gallery, padded where there are fewer. Scores are cosines for expansion,
    distances negated for k-reciprocal, what arrives for diffusion, agreeing pairs for keypoints, and the index's own
    for none. Behind the short list they fall by one a place.

    Raises
    ------
    RuntimeError : nothing was fitted yet.
    ValueError : no such name, a metric that it can't follow, keypoints without a picture, k < 1, a vector that is none,
        or something excluded that is not in the gallery.
    """
    k = check_k(k)
    check_name(name, engine.index.metric)
    if SECOND_LOOKS[name].needs_picture and picture is None:
        raise ValueError(f"{name} compares pixels: give the query's picture, its vector is not enough")
    vector = np.asarray(vector)
    if name in _EXPANSION:
        settings = _EXPANSION[name]
        first = engine.query_vector(vector, settings["top"], exclude).ranking
        if first.k:
            # Asked of the index once more, so that it finds what the first question did not.
            ids = first.ids[0]
            vector = expanded_queries(first, vector[None], engine.index.vectors(ids), **settings, ids=ids)[0]
        return _padded(engine.query_vector(vector, k, exclude).ranking, k)
    if name == "none":
        return _padded(engine.query_vector(vector, k, exclude).ranking, k)
    found = engine.query_vector(vector, max(k, SHORT), exclude).ranking
    head = found.head(SHORT)
    if head.k:
        head = (
            _by_keypoints(engine, head, picture) if name == "keypoints" else _by_neighbours(engine, head, vector, name)
        )
    return _padded(_before(head, found.ids[0, SHORT:]), k)


def names_for(metric: str, picture: bool = True) -> tuple[str, ...]:
    """Those of `NAMES` that an index of this metric can be followed by; with ``picture``, if its pixels are at hand."""
    return tuple(
        name for name, look in SECOND_LOOKS.items() if metric in look.metrics and (picture or not look.needs_picture)
    )


def check_name(name: str, metric: str) -> None:
    """
    Raises
    ------
    ValueError : no second look is called so, or it can't follow an index of this metric; the message lists what can.
    """
    if name not in SECOND_LOOKS:
        raise ValueError(f"no second look is called {name!r}; there are: {', '.join(NAMES)}")
    if metric not in SECOND_LOOKS[name].metrics:
        raise ValueError(
            f"{name} is made for cosines, this index measures {metric} distances: open it with the metric cosine, or "
            f"choose {' or '.join(names_for(metric))}"
        )


def _by_neighbours(engine: Engine, head: Ranking, vector: np.ndarray, name: str) -> Ranking:
    """The short list again, by who is near whom in it."""
    ids = head.ids[0]
    vectors = engine.index.vectors(ids)
    # An index that compresses has scores of its own; these are the cosines of the very vectors that follow.
    head = rescored(head, vector[None], vectors, ids)
    wanted = {"k-reciprocal": _K1, "diffusion": _NEIGHBOURS}[name]
    near = ExactIndex("cosine").add(vectors, ids).search(vectors, min(wanted + 1, len(ids)))
    if name == "k-reciprocal":
        return k_reciprocal(head, vector[None], vectors, near, wanted, _K2, ids=ids)
    return diffused(head, near, k=wanted, ids=ids)


def _by_keypoints(engine: Engine, head: Ranking, picture: np.ndarray) -> Ranking:
    """The short list again, those of its first first that agree with the picture on one homography."""
    ids = head.ids[0, :VERIFIED]
    longest = max(np.shape(picture)[:2], default=0)
    if longest > _SIDE:
        picture = resize(picture, tuple(max(1, round(side * _SIDE / longest)) for side in picture.shape[:2]))
    query = extract(picture)
    # Files that can't be read any more are warned of, and keep their places behind.
    there = extract_set(engine.gallery.subset(ids), longest=_SIDE, progress=False, cache=False)
    return verified(head, [query], dict(zip(ids.tolist(), there, strict=True)), depth=VERIFIED)


def _before(head: Ranking, rest: np.ndarray) -> Ranking:
    """A short list (1, m), and behind it further ids (r,) in their order."""
    if not len(rest):
        return head
    # In float64, where a step of one never vanishes.
    behind = head.scores[0, -1].astype(np.float64) - np.arange(1, len(rest) + 1)
    return Ranking(np.append(head.ids, rest[None], axis=1), np.append(head.scores, behind[None], axis=1))


def _padded(ranking: Ranking, k: int) -> Ranking:
    """The first ``k`` of a ranking, -1 behind them where there are fewer."""
    ranking = ranking.head(k)
    short = ((0, 0), (0, k - ranking.k))
    return Ranking(
        np.pad(ranking.ids, short, constant_values=PAD), np.pad(ranking.scores, short, constant_values=-np.inf)
    )
