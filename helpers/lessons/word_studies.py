"""Studies of notebook 14: text queries by several methods, combined queries, re-weighting, and bias of word vectors.

A. Caliskan, J. Bryson, A. Narayanan, Semantics derived automatically from language corpora contain human-like biases,
Science 356, 2017: the Word Embedding Association Test (WEAT).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from helpers.evaluation.intervals import bootstrap_interval
from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.evaluation.text_queries import evaluate_texts, names_table, query_names
from helpers.features.class_weights import ClassWeights, reweighted
from helpers.features.text import WordVectors
from helpers.images import caltech101, imagenet, samples
from helpers.images.imageset import ImageSet
from helpers.search.index import open_index

#: The metrics of a text query in tables.
METRICS = ("mAP", "precision@10")


@dataclass(frozen=True, eq=False)
class TextTask:
    """A data set that is searched by the names of its classes.

    Attributes
    ----------
    images : the gallery; each class name is a query.
    known : the class names that ImageNet's classes cover, see `sample_task` and the others.
    weight_texts : label → the text by which queries are re-weighted.
    """

    images: ImageSet
    known: frozenset[str]
    weight_texts: Mapping[int, str] = field(default_factory=dict)


def sample_task() -> TextTask:
    """The photographs of the sample. Its class names, such as "fruit", are names of no class of ImageNet."""
    photos = samples.photos()
    return TextTask(photos, frozenset(photos.class_names) & _imagenet_names(), dict(enumerate(photos.class_names)))


def caltech_task() -> TextTask:
    """Caltech-101 without the faces and the random images; the known classes are those of `KNOWN_TO_IMAGENET`.

    The two classes of faces have the same photographs. Known classes are re-weighted by the name of ImageNet's class.
    """
    images = caltech101.load()
    faces = [number for number, name in enumerate(images.class_names) if name in ("Faces", "Faces_easy")]
    left = images.subset((images.labels >= 0) & ~np.isin(images.labels, faces))
    known = caltech101.KNOWN_TO_IMAGENET
    used = [label for label in np.unique(left.labels).tolist() if left.class_names[label] in known]
    return TextTask(left, frozenset(known), {label: known[left.class_names[label]] for label in used})


def imagenette_task() -> TextTask:
    """Imagenette's validation images; all class names are ImageNet's."""
    images = imagenet.imagenette().where(lambda key: key.startswith("val/"))
    return TextTask(images, frozenset(images.class_names))


def object_task() -> TextTask:
    """The photographs of the sample by the object in the file name, such as "sea lion" for ``sea_lion.jpg``.

    The known objects have the name of a class of ImageNet. Files with numbers only have no class.
    """
    photos = samples.photos()
    names = [re.sub(r"[\d_]+", " ", path.stem).strip() for path in photos.paths]
    objects = sorted(set(names) - {""})
    labels = [objects.index(name) if name else -1 for name in names]
    images = ImageSet("sample-objects", photos.paths, np.array(labels), tuple(objects), root=photos.root)
    return TextTask(images, frozenset(objects) & _imagenet_names())


def _imagenet_names() -> frozenset[str]:
    return frozenset(name.lower() for name in imagenet.classes().values())


# ---- text queries ---------------------------------------------------------------------------------------------


def score_methods(
    spaces: Mapping[str, Sequence[np.ndarray]], words: WordVectors, protocol: Protocol
) -> dict[str, list[Scores]]:
    """Method → its scores under a text protocol, one per training.

    spaces : method → the images' vectors in word space, float32 (n, dim), of each training.
    """
    texts = words.embed_names(query_names(protocol))
    return {
        method: [evaluate_texts(protocol, texts, vectors, open_index("exact:cosine")) for vectors in several]
        for method, several in spaces.items()
    }


def methods_table(scores: Mapping[str, Scores], protocol: Protocol, task: TextTask) -> pd.DataFrame:
    """One row per method and group of names: the columns of `names_table`, the data set, the method and the ceilings.

    scores : name of the method → its scores under the protocol.
    """
    names = query_names(protocol)
    parts = []
    for method, score in scores.items():
        table = names_table(score, protocol, task.known, METRICS)
        table.insert(0, "dataset", task.images.name)
        table.insert(1, "images", len(task.images))
        table.insert(2, "method", method)
        trained = np.array([names[row] in task.known for row in score.rows], bool)
        groups = {"known": trained, "others": ~trained, "all": np.ones(len(trained), bool)}
        for metric in METRICS:
            table[f"{metric} ceiling"] = [score.ceilings[metric][groups[name]].mean() for name in table["names"]]
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def by_method(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """`methods_table` with one column per method: value and 95 % interval, then chance and ceiling.

    There is a row for all names only if some of them are known and others are not.
    """
    rows = []
    groups = table.groupby("dataset")["names"].nunique()
    for (dataset, names), part in with_intervals(table, [metric]).groupby(["dataset", "names"], sort=False):
        if names == "all" and groups[dataset] == 2:
            continue
        first = part.iloc[0]
        row = {"images of": dataset, "names": names, "queries": first["queries"]}
        row |= part.set_index("method")[metric].to_dict()
        rows.append(row | {"chance": first[f"{metric} chance"], "ceiling": first[f"{metric} ceiling"]})
    return pd.DataFrame(rows)


def classes_table(scores: Mapping[str, Scores], protocol: Protocol, task: TextTask) -> pd.DataFrame:
    """One row per class name: dataset, name, whether it is known, relevant images, and the AP of each method."""
    rows = next(iter(scores.values())).rows
    names = [query_names(protocol)[row] for row in rows]
    table = pd.DataFrame({"dataset": task.images.name, "name": names})
    table["known"] = [name in task.known for name in names]
    table["relevant"] = protocol.n_relevant[rows]
    for method, score in scores.items():
        table[f"AP, {method}"] = score.values["mAP"]
    return table


# ---- combined queries -----------------------------------------------------------------------------------------


def first_result_shares(
    similarity: np.ndarray, text_scores: np.ndarray, labels: np.ndarray, weights: Sequence[float], own: bool = False,
    texts: Sequence[int] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The class of the first result of "image + weight × class name", for each weight.

    Columns: weight, ``image``: share of queries whose first result has the class of the query image, and ``text``: the
    class of the text, each with its 95 % bootstrap interval over the texts (``image low`` …), and ``chance``: the mean
    share of the text's class in the gallery. An image is never a result of its own query.

    similarity : float (n, n), cosines of the images. text_scores : float (c, n), of the class names with the images.
    labels : int64 (n,). own : the text is the class of the image; otherwise all images of other classes are queries.
    texts : the labels whose names are texts; None for all.
    """
    similarity = similarity.copy()
    np.fill_diagonal(similarity, -np.inf)
    rows = []
    used = np.unique(labels if texts is None else texts)
    for weight in weights:
        kept, moved = [], []
        for label in used:
            queries = np.flatnonzero((labels == label) == own)
            first = labels[(similarity[queries] + weight * text_scores[label]).argmax(axis=1)]
            kept.append((first == labels[queries]).mean())
            moved.append((first == label).mean())
        row = {"weight": weight, "image": np.mean(kept), "text": np.mean(moved)}
        for name, values in (("image", kept), ("text", moved)):
            row[f"{name} low"], row[f"{name} high"] = bootstrap_interval(np.array(values))
        rows.append(row | {"chance": float(np.mean([(labels == label).mean() for label in used]))})
    return pd.DataFrame(rows)


def shares_by_names(
    similarity: np.ndarray, text_scores: np.ndarray, task: TextTask, weights: Sequence[float], own: bool = False
) -> pd.DataFrame:
    """`first_result_shares` for the known names and for the others.

    The columns ``names`` and ``texts`` have the group and its number of texts.
    """
    parts = []
    for title, known in (("known", True), ("others", False)):
        used = np.unique(task.images.labels[task.images.labels >= 0]).tolist()
        texts = [label for label in used if (task.images.class_names[label] in task.known) == known]
        if texts:
            part = first_result_shares(similarity, text_scores, task.images.labels, weights, own, texts)
            part.insert(0, "names", title)
            part.insert(1, "texts", len(texts))
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def with_intervals(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A table with "value [low, high]" in each of these columns, instead of the columns ``… low`` and ``… high``."""
    table = table.copy()
    for column in columns:
        bounds = zip(table[column], table[f"{column} low"], table[f"{column} high"], strict=True)
        table[column] = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in bounds]
    return table.drop(columns=[f"{column} {end}" for column in columns for end in ("low", "high")])


def reweighted_shares(
    features: np.ndarray, labels: np.ndarray, texts: Mapping[int, str], weights: ClassWeights
) -> pd.DataFrame:
    """The share of first results that have the class of a text, for images of other classes, re-weighted by the text.

    Columns: text, the nearest class of ImageNet, the share without re-weighting (``plain``), with queries and gallery
    re-weighted (``both``), and with queries only (``query``), ``chance``, and ``different``: the number of different
    first results with re-weighted queries. One result means that the query image does not matter.

    features : float32 (n, dim), of length 1. labels : int64 (n,). texts : label → the text.
    """
    rows = []
    for label, text in texts.items():
        by = reweighted(features, weights.weights(text))
        queries = np.flatnonzero(labels != label)
        row: dict[str, object] = {"text": text, "class of ImageNet": weights.classes(text)[0]}
        for name, left, right in (("plain", features, features), ("both", by, by), ("query", by, features)):
            scores = left @ right.T
            np.fill_diagonal(scores, -np.inf)
            first = scores[queries].argmax(axis=1)
            row[name] = float((labels[first] == label).mean())
        rows.append(row | {"chance": float((labels == label).mean()), "different": len(set(first.tolist()))})
    return pd.DataFrame(rows)


# ---- bias of word vectors -------------------------------------------------------------------------------------


class Association(NamedTuple):
    """Result of `association_test`: the effect size, and the one-sided p-value of the permutation test."""

    effect: float
    p_value: float


def association_test(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> Association:
    """The Word Embedding Association Test (Caliskan, Bryson & Narayanan 2017) of two sets of words with two attributes.

    The association of a word is its mean cosine with ``a`` minus that with ``b``. The effect size is the difference of
    the mean associations of ``x`` and ``y``, divided by the standard deviation over both. The p-value is the share of
    all divisions of the words into two sets of the same sizes with at least the difference of ``x`` and ``y``.

    x, y, a, b : float (…, dim), of length 1.
    """
    both = np.concatenate([x, y]).astype(np.float64)
    association = (both @ a.T).mean(axis=1) - (both @ b.T).mean(axis=1)
    size = len(x)
    effect = (association[:size].mean() - association[size:].mean()) / association.std(ddof=1)
    sums = np.array([association[list(rows)].sum() for rows in combinations(range(len(both)), size)])
    # The tolerance counts divisions that differ by rounding only.
    return Association(float(effect), float((sums >= association[:size].sum() - 1e-12).mean()))
