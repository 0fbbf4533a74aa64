"""Measurements of notebook 15: search by regions on the scenes, by the size of the object, and for two objects at once.

The score of a scene for a query is the maximum of the query's cosines with the whole scene and with each of its
regions, as in `helpers.search.region_search`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from time import perf_counter
from timeit import repeat

import numpy as np
import pandas as pd

from helpers.evaluation import builders, metrics, runner, scene_protocols
from helpers.evaluation.intervals import PairedResult, bootstrap_interval, paired_difference, wilson_interval
from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.features.extractor import FeatureExtractor
from helpers.features.region_vectors import region_vectors
from helpers.features.regions import RegionSource
from helpers.images.imageset import ImageSet
from helpers.images.scenes import Scenes
from helpers.search.ranking import rank
from helpers.vectors import l2_normalize

#: Areas of the object as a share of the scene: at least the first, less than the second.
BANDS = ((0.02, 0.05), (0.05, 0.1), (0.1, 0.25), (0.25, 0.61))
#: Name of a task → its protocol.
TASKS = {"known item": scene_protocols.known_item, "class": scene_protocols.same_class}
WHOLE = "whole image"


def select(scenes: Scenes, rows: Sequence[int] | np.ndarray) -> Scenes:
    """Some of the scenes, by their rows in ascending order, with their objects and pairs."""
    number = {int(row): new for new, row in enumerate(rows)}
    return replace(
        scenes,
        images=scenes.images.subset(rows),
        objects=tuple(replace(each, scene=number[each.scene]) for each in scenes.objects if each.scene in number),
        backgrounds=tuple(scenes.backgrounds[row] for row in number),
        pairs=tuple(pair._replace(scene=number[pair.scene]) for pair in scenes.pairs if pair.scene in number),
    )


@dataclass(frozen=True, eq=False)
class SceneVectors:
    """Vectors of the photographs and of the scenes, of length 1.

    photos, whole : float32 (n, dim), of the photographs and the whole scenes.
    regions : float32 (m, dim) for the m regions of each scene.
    """

    photos: np.ndarray
    whole: np.ndarray
    regions: Sequence[np.ndarray]

    @cached_property
    def cosines(self) -> np.ndarray:
        """float32 (photographs, scenes): the maximum of the cosines with the parts of each scene."""
        return np.stack([(self.photos @ parts.T).max(axis=1) for parts in self.parts], axis=1)

    @cached_property
    def parts(self) -> list[np.ndarray]:
        """float32 (1 + m, dim) for each scene: the whole scene, then its regions."""
        return [np.vstack([own, regions]) for own, regions in zip(self.whole, self.regions, strict=True)]


def scene_vectors(
    scenes: Scenes, extractor: FeatureExtractor, sources: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, SceneVectors]:
    """Name of a source → vectors; `WHOLE`, without regions, comes first.

    sources : name → boxes, floating (m, 4), of each scene.
    """
    photos = l2_normalize(extractor.extract(scenes.photos, progress=False))
    whole = l2_normalize(extractor.extract(scenes.images, progress=False))
    found = {WHOLE: SceneVectors(photos, whole, [whole[:0]] * len(scenes))}
    for name, boxes in sources.items():
        vectors = region_vectors(extractor, scenes.images, boxes, progress=False)
        found[name] = SceneVectors(photos, whole, [l2_normalize(each) if len(each) else each for each in vectors])
    return found


def score(vectors: SceneVectors, protocol: Protocol) -> Scores:
    """The scores under a protocol whose queries are rows of the photographs, and whose last images are the scenes."""
    ids = np.arange(len(protocol) - len(vectors.whole), len(protocol))
    ranking = rank(ids, vectors.cosines[protocol.queries])
    with warnings.catch_warnings():
        # The tables have the number of queries with a relevant scene.
        warnings.simplefilter("ignore", metrics.NoRelevantImageWarning)
        return metrics.evaluate(runner.excluding(ranking, protocol), protocol)


@dataclass(frozen=True, eq=False)
class BandScores:
    """The scores of each method for objects of one size.

    labels : int64 (q,), the class of each query.
    """

    task: str
    areas: tuple[float, float]
    scores: Mapping[str, Scores]
    labels: np.ndarray

    @property
    def clusters(self) -> np.ndarray | None:
        """In the class task, whole classes are drawn, because queries of a class share their relevant scenes."""
        return self.labels if self.task == "class" else None

    def difference(self, name: str) -> PairedResult:
        """The paired difference in AP of a method and `WHOLE` on the same queries."""
        first, second = (self.scores[each].values["mAP"] for each in (name, WHOLE))
        return paired_difference(first, second, clusters=self.clusters)


def by_size(
    scenes: Scenes, vectors: Mapping[str, SceneVectors], bands: Sequence[tuple[float, float]] = BANDS
) -> list[BandScores]:
    """The scores of each method in both tasks, for each band of areas."""
    found = []
    for task, make in TASKS.items():
        for areas in bands:
            protocol = make(scenes, areas=areas)
            scores = {name: score(each, protocol) for name, each in vectors.items()}
            rows = protocol.queries[protocol.has_relevant]
            found.append(BandScores(task, areas, scores, scenes.photos.labels[rows]))
    return found


def size_table(bands: Sequence[BandScores]) -> pd.DataFrame:
    """mAP with 95 % intervals: task, area low, area high, queries, method, mAP, low, high, chance."""
    rows = []
    for band in bands:
        for name, scores in band.scores.items():
            low, high = bootstrap_interval(scores.values["mAP"], clusters=band.clusters)
            mean, chance = scores.mean("mAP"), scores.mean_chance("mAP")
            rows.append((band.task, *band.areas, scores.n_queries, name, mean, low, high, chance))
    columns = ["task", "area low", "area high", "queries", "method", "mAP", "low", "high", "chance"]
    return pd.DataFrame(rows, columns=columns)


def difference_table(bands: Sequence[BandScores]) -> pd.DataFrame:
    """Paired differences in mAP from `WHOLE`: task, area low, area high, method, difference, low, high, p."""
    rows = [
        (band.task, *band.areas, name, *astuple(band.difference(name)))
        for band in bands
        for name in band.scores
        if name != WHOLE
    ]
    return pd.DataFrame(rows, columns=["task", "area low", "area high", "method", "difference", "low", "high", "p"])


def pair_scores(first: np.ndarray, second: np.ndarray) -> float:
    """The square root of the best product of two cosines: one with the first and one with the second query part.

    The two cosines are of different image parts.

    first, second : float (m,), the cosines with the same m parts of an image. A single part counts for both.
    """
    products = np.maximum(first, 0)[:, None] * np.maximum(second, 0)[None]
    if len(products) > 1:
        np.fill_diagonal(products, 0)
    return float(np.sqrt(products.max()))


def pair_ranks(scenes: Scenes, vectors: SceneVectors) -> np.ndarray:
    """The rank of the right scene for each query of two photographs: int64 (pairs,), from 1."""
    ranks = []
    for pair in scenes.pairs:
        queries = vectors.photos[[pair.first, pair.second]]
        scores = np.array([pair_scores(*(queries @ parts.T)) for parts in vectors.parts])
        ranks.append(1 + int((scores > scores[pair.scene]).sum()))
    return np.array(ranks)


def pair_table(scenes: Scenes, vectors: Mapping[str, SceneVectors]) -> pd.DataFrame:
    """Queries of two objects: method, pairs, first (share of right scenes at rank 1), low, high, median rank."""
    rows = []
    for name, each in vectors.items():
        ranks = pair_ranks(scenes, each)
        first = float((ranks == 1).mean())
        rows.append((name, len(ranks), first, *wilson_interval(first, len(ranks)), float(np.median(ranks))))
    return pd.DataFrame(rows, columns=["method", "pairs", "first", "low", "high", "median rank"])


def background_scores(scenes: Scenes, vectors: Mapping[str, SceneVectors]) -> dict[str, Scores]:
    """Every whole scene is a query, and the other scenes on the same background are relevant."""
    names, labels = np.unique(scenes.backgrounds, return_inverse=True)
    images = ImageSet("scenes-backgrounds", scenes.images.paths, labels, tuple(names.tolist()))
    protocol = builders.leave_one_out(images, images.name)
    return {name: score(replace(each, photos=each.whole), protocol) for name, each in vectors.items()}


def costs(
    images: ImageSet, extractor: FeatureExtractor, sources: Sequence[RegionSource], repeats: int = 2
) -> pd.DataFrame:
    """What regions cost: method, vectors, bytes (float32) and milliseconds of an image, and the time as a factor.

    The milliseconds include reading; the shortest of ``repeats`` runs counts. Nothing is read from the cache.
    """
    whole = min(repeat(lambda: extractor.extract(images, progress=False, cache=False), number=1, repeat=repeats))
    rows = [(WHOLE, 1.0, whole)]
    for source in sources:
        count, seconds = 0, []
        for _ in range(repeats):
            start = perf_counter()
            boxes = [found.boxes if found is not None else np.empty((0, 4)) for found in source.find(images)]
            region_vectors(extractor, images, boxes, cache=False, progress=False)
            seconds.append(perf_counter() - start)
            count = sum(map(len, boxes))
        rows.append((source.name, 1 + count / len(images), whole + min(seconds)))
    return pd.DataFrame(
        [(name, vectors, 4 * extractor.dim * vectors, 1000 * total / len(images), total / whole)
         for name, vectors, total in rows],
        columns=["method", "vectors", "bytes", "ms", "time / whole"],
    )  # fmt: skip
