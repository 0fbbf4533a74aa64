"""Transfer learning with several networks and seeds: heads and fine-tuned last blocks, on stored feature maps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from helpers.evaluation import builders
from helpers.evaluation.metrics import Scores
from helpers.features.deep import ModelExtractor
from helpers.features.feature_maps import feature_maps, vectors
from helpers.lessons import baseline_studies
from helpers.lessons.baseline_studies import Task
from helpers.lessons.extractor_comparison import search
from helpers.networks import examples, training, transfer, zoo
from helpers.networks.training import Training
from helpers.networks.transfer import SplitNetwork
from helpers.vectors import l2_normalize

if TYPE_CHECKING:
    import keras

#: Names of the losses, see `loss`.
LOSSES = ("softmax", "cosine")
#: Columns of `summary`.
COLUMNS = (
    "network", "variant", "dim", "seeds", "epoch kept", "top-1", "mAP", "low", "high", "lowest seed", "highest seed",
    "chance",
)  # fmt: skip
#: How `kept` shows that the pretrained weights were better than those of every epoch.
UNTOUCHED = "0 (off the shelf)"


@dataclass(frozen=True)
class Settings:
    """Settings of both stages.

    head_rate, head_epochs : learning rate and number of epochs of the head.
    rate, epochs : the same of fine-tuning.
    """

    head_rate: float = 3e-4
    head_epochs: int = 40
    rate: float = 3e-5
    epochs: int = 4


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network that was split after its frozen blocks, and the feature maps of a task's images.

    maps : float16 (n, h, w, channels), row *i* of image *i*.
    pretrained : the weights of the network's tail before any training.
    train_rows, validation_rows : rows of the images for training and validation.
    """

    task: Task
    split: SplitNetwork
    maps: np.ndarray
    pretrained: list[np.ndarray]
    train_rows: np.ndarray
    validation_rows: np.ndarray

    def embeddings(self, weights: list[np.ndarray] | None = None, maps: np.ndarray | None = None) -> np.ndarray:
        """float32 (n, dim), L2-normalized: the tail's output with these weights, which it has only during the call.

        weights : the pretrained ones if None. maps : those of the task's images if None.
        """
        return self._output(weights, maps, normalize=True)

    @cached_property
    def inputs(self) -> np.ndarray:
        """float32 (n, dim), the pretrained embeddings with their lengths, which a softmax head uses."""
        return self._output(None, None, normalize=False)

    def _output(self, weights: list[np.ndarray] | None, maps: np.ndarray | None, normalize: bool) -> np.ndarray:
        tail = self.split.tail
        before = tail.get_weights()
        tail.set_weights(self.pretrained if weights is None else weights)
        try:
            return vectors(tail, self.maps if maps is None else maps, normalize=normalize, cache=True)
        finally:
            tail.set_weights(before)


class Tuned(NamedTuple):
    """A head, the training of the last block behind it, and the weights of the tail that this training kept."""

    head: "keras.Model"
    training: Training
    weights: list[np.ndarray]


class Variant(NamedTuple):
    """The scores of one way to use a network, one per seed, and the epochs whose weights were kept."""

    network: str
    variant: str
    dim: int
    scores: Sequence[Scores]
    epochs: Sequence[int] = ()


def prepare(split: SplitNetwork, task: Task, progress: bool = True) -> Prepared:
    """Compute the feature maps of a task's images, or load them from the cache.

    split : a network with its pretrained weights.
    """
    maps = feature_maps(task.images, split, progress=progress)
    row_of = {key: row for row, key in enumerate(task.images.keys)}
    train, validation = (np.array([row_of[key] for key in part.keys]) for part in (task.train, task.validation))
    return Prepared(task, split, maps, split.tail.get_weights(), train, validation)


def loss(kind: str) -> "keras.losses.Loss":
    """The loss of a name in `LOSSES`: cross-entropy of a softmax, or of scaled cosines with a margin (CosFace)."""
    import keras

    from helpers.networks.losses import MarginSoftmaxLoss

    if kind not in LOSSES:
        raise ValueError(f"no loss is called {kind!r}; available: {', '.join(LOSSES)}")
    if kind == "softmax":
        return keras.losses.SparseCategoricalCrossentropy()
    return MarginSoftmaxLoss("cosface", margin=0.2, scale=16)


@lru_cache(maxsize=1)
def _models(prepared: Prepared, kind: str, settings: Settings) -> "tuple[keras.Model, keras.Model]":
    """The compiled models of both stages, which are trained with one seed after the other.

    TensorFlow traces a model once, which takes longer than a short training.
    """
    import keras

    head = _new_head(prepared, kind, 0)
    tuned = transfer.warmed_up(prepared.split.tail, head)
    for model, rate in ((head, settings.head_rate), (tuned, settings.rate)):
        # Keras would trace the training step twice if the metric were given by name.
        accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
        model.compile(keras.optimizers.Adam(rate), loss(kind), metrics=[accuracy], jit_compile=False)
    return head, tuned


def train_head(prepared: Prepared, kind: str, seed: int, settings: Settings) -> "tuple[keras.Model, Training]":
    """Train a classifier on the pretrained embeddings; it keeps the epoch with the lowest validation loss."""
    task, found = prepared.task, prepared.inputs
    head, (model, _) = _new_head(prepared, kind, seed), _models(prepared, kind, settings)
    model.set_weights(head.get_weights())
    history = training.fit(
        model,
        examples.arrays(found[prepared.train_rows], task.train.labels),
        name=f"05-{prepared.split.name}-head-{kind}",
        epochs=settings.head_epochs,
        seed=seed,
        validation=examples.arrays(found[prepared.validation_rows], task.validation.labels),
        progress=False,
    )
    head.set_weights(model.get_weights())
    return head, history


def _new_head(prepared: Prepared, kind: str, seed: int) -> "keras.Model":
    return transfer.head(prepared.inputs.shape[1], prepared.task.classes, seed=seed, cosine=kind == "cosine")


def validation_scores(prepared: Prepared) -> Scores:
    """Each validation image searched among the other ones, with the weights that the tail has now."""
    trial = builders.leave_one_out(prepared.task.validation, "validation")
    return search(vectors(prepared.split.tail, prepared.maps[prepared.validation_rows]), trial)


def validation_map(prepared: Prepared) -> "Callable[[keras.Model], float]":
    """A score for `training.fit`: the mAP of `validation_scores`."""
    return lambda _: validation_scores(prepared).mean("mAP")


def fine_tune(prepared: Prepared, kind: str, seed: int, settings: Settings) -> Tuned:
    """Train a head, then the last block together with it.

    The training keeps the epoch with the highest `validation_map`; epoch 0 is the pretrained network. Afterwards the
    tail has its pretrained weights again.
    """
    head, _ = train_head(prepared, kind, seed, settings)
    tail, (_, model) = prepared.split.tail, _models(prepared, kind, settings)
    tail.set_weights(prepared.pretrained)
    model.get_layer("classifier").set_weights(head.get_layer("classifier").get_weights())
    history = training.fit(
        model,
        examples.arrays(prepared.maps[prepared.train_rows], prepared.task.train.labels),
        name=f"05-{prepared.split.name}-tuned-{kind}",
        epochs=settings.epochs,
        batch_size=16,
        seed=seed,
        score=validation_map(prepared),
        progress=False,
    )
    weights = tail.get_weights()
    tail.set_weights(prepared.pretrained)
    return Tuned(head, history, weights)


def compare_variants(
    prepared: Prepared, kinds: Iterable[str], seeds: Sequence[int], settings: Settings
) -> tuple[list[Variant], dict[tuple[str, int], Tuned]]:
    """Search with a network off the shelf, with the outputs of a head only, and with the fine-tuned last block.

    kinds : losses, see `LOSSES`. Returns the variants, and loss and seed → what was trained.
    """
    name, protocol = prepared.split.name, prepared.task.protocol
    embeddings = prepared.embeddings()
    variants = [Variant(name, "off the shelf", embeddings.shape[1], [search(embeddings, protocol)])]
    tuned: dict[tuple[str, int], Tuned] = {}
    inputs = prepared.inputs
    for kind in kinds:
        each = [fine_tune(prepared, kind, seed, settings) for seed in seeds]
        tuned |= {(kind, seed): one for seed, one in zip(seeds, each, strict=True)}
        # A call, because `predict` would compile a function for each head.
        outputs = [search(l2_normalize(np.asarray(one.head(inputs, training=False))), protocol) for one in each]
        variants.append(Variant(name, f"head only, {kind}", prepared.task.classes, outputs))
        found = [search(prepared.embeddings(one.weights), protocol) for one in each]
        epochs = [one.training.best_epoch for one in each]
        variants.append(Variant(name, f"fine-tuned, {kind}", embeddings.shape[1], found, epochs))
    return variants, tuned


def extractors(prepared: Prepared, tuned: Tuned) -> dict[str, ModelExtractor]:
    """Feature extractors of images for the trained variants of a network.

    Returns "head only" (the head on the pretrained network) and "fine-tuned" (the frozen blocks, and a copy of the
    others with the weights of ``tuned``).
    """
    import keras

    split, task, name = prepared.split, prepared.task, prepared.split.name
    tail = keras.models.clone_model(split.tail)
    tail.set_weights(tuned.weights)
    copy = keras.Sequential([split.trunk, tail], name=f"{name}_tuned")
    dataset, preprocessing = task.protocol.dataset, zoo.preprocessing(name)
    by_head = keras.Sequential([split.whole, tuned.head], name=f"{name}_head")
    origin = f"imagenet, {dataset} ({len(task.train)} images)"
    # Compiling takes longer than the few images of a lesson.
    return {
        "head only": ModelExtractor(f"{name}+head", by_head, f"imagenet, {dataset}", preprocessing, engine="keras"),
        "fine-tuned": ModelExtractor(f"{name}+tuned", copy, origin, preprocessing, engine="keras"),
    }


def kept(epochs: Sequence[int]) -> str:
    """The epochs that were kept as text; 0 is labeled as the network off the shelf."""
    return ", ".join(UNTOUCHED if epoch == 0 else str(epoch) for epoch in epochs) or "–"


def summary(variants: Iterable[Variant], seed: int = 0) -> pd.DataFrame:
    """One row per variant, with `COLUMNS`.

    low and high bound the 95 % interval of the mAP (mean over the seeds) over the queries. lowest and highest seed are
    the mAP of single trainings; they are equal for a network that is not trained.
    """
    rows = []
    for one in variants:
        table = baseline_studies.score_table({one.variant: one.scores}, ["top-1", "mAP"], seed).set_index("metric")
        by_seed = [score.mean("mAP") for score in one.scores]
        mean = table.loc["mAP"]
        rows.append(
            (
                one.network, one.variant, one.dim, len(one.scores), kept(one.epochs), table.loc["top-1", "value"],
                mean["value"], mean["low"], mean["high"], min(by_seed), max(by_seed), mean["chance"],
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))
