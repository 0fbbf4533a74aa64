"""Studies of small networks: images divided for training, early stopping replayed, and scores of several seeds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from helpers import extras
from helpers.evaluation import builders, protocol_files
from helpers.evaluation.intervals import PairedResult, bootstrap_intervals, paired_difference
from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.images.imageset import ImageSet
from helpers.networks import examples
from helpers.visualization import tables

with extras.importing("notebooks", "IPython"):
    from IPython.display import Markdown

if TYPE_CHECKING:
    import keras

#: The scores of each method: one per seed of a trained network, a single one of other extractors.
SeedScores = Mapping[str, Sequence[Scores]]


class Task(NamedTuple):
    """A protocol with its images, the images for training and validation, and the number of their classes."""

    protocol: Protocol
    images: ImageSet
    train: ImageSet
    validation: ImageSet
    classes: int


def divide(name: str, images: ImageSet, max_classes: int | None = None, seed: int = 0) -> Task:
    """Bind a frozen protocol, and divide the images that are neither queries nor copies of queries.

    A fifth of each class, drawn with ``seed``, is for validation.

    max_classes : use the first classes only.
    """
    protocol, images = protocol_files.frozen(name).bind(images)
    if max_classes is not None:
        few = np.flatnonzero(images.labels < max_classes)
        images = images.subset(few)
        queries, in_gallery = np.isin(few, protocol.queries), np.isin(few, protocol.gallery)
        protocol = builders.query_gallery(images, queries, in_gallery, f"{name}-{max_classes}-classes")
    learnable = builders.learnable(protocol, images)
    train, validation = learnable.split(0.2, seed)
    return Task(protocol, images, train, validation, len(learnable.class_names))


def accuracy(network: "keras.Model", images: ImageSet) -> float:
    """Share of the images that a classifier of square images, in 0 … 255, assigns to their class."""
    batches = examples.images(images, network.input_shape[1]).batches(np.arange(len(images)), 50)
    classes = [np.argmax(network(pixels, training=False), axis=1) for pixels, _ in batches]
    return float(np.mean(np.concatenate(classes) == images.labels))


def replay_early_stopping(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """The last and the best epoch, from 1, that `keras.callbacks.EarlyStopping` gives for these validation losses.

    losses : of a training without or with a larger patience.
    """
    import keras

    if not len(losses):
        raise ValueError("a training has at least one epoch, so at least one loss is needed")
    model = keras.Sequential()
    # As `fit` does before the first epoch.
    model.stop_training = False
    stopping = keras.callbacks.EarlyStopping(patience=patience)
    stopping.set_model(model)
    stopping.on_train_begin()
    for epoch, loss in enumerate(losses):
        stopping.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            break
    return epoch + 1, stopping.best_epoch + 1


def per_query(scores: Sequence[Scores], metric: str) -> np.ndarray:
    """float64 (q,): the mean over the seeds of each query's value."""
    return np.mean([score.values[metric] for score in scores], axis=0)


def compare(scores: SeedScores, first: str, second: str, metric: str, seed: int = 0) -> PairedResult:
    """The paired difference of two methods on the same queries, each averaged over its seeds."""
    return paired_difference(per_query(scores[first], metric), per_query(scores[second], metric), seed=seed)


def score_table(scores: SeedScores, metrics: Iterable[str], seed: int = 0) -> pd.DataFrame:
    """One row per method and metric: value, low, high (95 % bootstrap over queries), seeds, chance and ceiling.

    The interval is that of the mean over the seeds: it holds for other queries, not for other seeds.
    """
    metrics, rows = list(metrics), []
    for method, by_seed in scores.items():
        columns = {metric: per_query(by_seed, metric) for metric in metrics}
        spans = bootstrap_intervals(columns, seed=seed)
        for metric, values in columns.items():
            bounds = by_seed[0].mean_chance(metric), by_seed[0].mean_ceiling(metric)
            rows.append((method, metric, float(values.mean()), *spans[metric], len(by_seed), *bounds))
    return pd.DataFrame(rows, columns=["method", "metric", "value", "low", "high", "seeds", "chance", "ceiling"])


def comparison(table: pd.DataFrame) -> Markdown:
    """A `score_table` as Markdown: one line per method, then chance and ceiling."""
    return tables.by_metric(table, dict.fromkeys(table["metric"]), ("method", "seeds"))
