"""Evaluates text → image search: the name of each class is a query, and the images of the class are relevant."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from helpers.evaluation.intervals import bootstrap_interval
from helpers.evaluation.metrics import Scores, evaluate
from helpers.evaluation.protocol import Protocol
from helpers.evaluation.runner import run
from helpers.images.imageset import ImageSet

if TYPE_CHECKING:
    import pandas as pd

    from helpers.search.index import Index


def text_protocol(images: ImageSet, name: str = "") -> Protocol:
    """The protocol with one query per class that has images; all images are the gallery.

    The first ids are the texts, in the order of ``images.class_names``; the others are the images.
    """
    used = np.flatnonzero(images.counts > 0)
    names = [images.class_names[each] for each in used]
    return Protocol(
        name or f"{images.name}-text",
        images.name,
        "The name of each class is a query, and all images are the gallery.",
        (*(f"text:{each}" for each in names), *images.keys),
        np.concatenate([used, images.labels]),
        images.class_names,
        np.arange(len(used)),
        np.arange(len(used), len(used) + len(images)),
    )


def query_names(protocol: Protocol) -> list[str]:
    """The texts of a `text_protocol`, in the order of its queries."""
    return [protocol.class_names[label] for label in protocol.labels[protocol.queries]]


def evaluate_texts(protocol: Protocol, texts: np.ndarray, images: np.ndarray, index: "Index") -> Scores:
    """Search all images for each text, and score the rankings.

    texts : float32 (q, dim), in the order of `query_names`. images : float32 (n, dim). index : an empty index.
    """
    return evaluate(run(protocol, np.concatenate([texts, images]), index), protocol)


def names_table(
    scores: Scores, protocol: Protocol, known: Collection[str], metrics: Sequence[str] = ("mAP", "precision@10")
) -> "pd.DataFrame":
    """One row for the names that a network was trained on, one for the others, and one for all.

    Columns: names, queries, and for each metric its mean, chance, and the 95 % bootstrap interval over the queries,
    each of which is a class: ``mAP``, ``mAP low``, ``mAP high``, ``mAP chance``.

    known : the class names that the network was trained on.
    """
    import pandas as pd

    names = query_names(protocol)
    trained = np.array([names[row] in known for row in scores.rows], bool)
    rows = []
    for label, chosen in (("known", trained), ("others", ~trained), ("all", np.ones(len(trained), bool))):
        if not chosen.any():
            continue
        row: dict[str, object] = {"names": label, "queries": int(chosen.sum())}
        for metric in metrics:
            values = scores.values[metric][chosen]
            low, high = bootstrap_interval(values)
            row |= {metric: float(values.mean()), f"{metric} low": low, f"{metric} high": high}
            row[f"{metric} chance"] = float(scores.chances[metric][chosen].mean())
        rows.append(row)
    return pd.DataFrame(rows)
