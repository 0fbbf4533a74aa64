"""Studies of metric learning on identities that no training saw: baselines, linear heads, and a tuned last block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import keras
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from helpers.evaluation import builders, intervals
from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.features.feature_maps import feature_maps, vectors
from helpers.images.imageset import ImageSet
from helpers.lessons.extractor_comparison import mean_scores, search
from helpers.networks import examples, metric_heads, training, transfer
from helpers.networks.losses import SupConLoss
from helpers.networks.metric_heads import LinearMap
from helpers.networks.samplers import PKSampler

#: Of linear discriminant analysis: chosen from 0.1, 0.3, … 0.9 on validation people of LFW.
SHRINKAGE = 0.7


@dataclass(frozen=True, eq=False)
class UnseenTask:
    """Vectors to train on, and a protocol of other identities with their vectors.

    protocol : its row *i* is row *i* of ``test``.
    test : float32 (m, dim).
    known : float32 (n, dim), of identities that are not in the protocol.
    labels : int (n,), the identity of each known vector.
    """

    protocol: Protocol
    test: np.ndarray
    known: np.ndarray
    labels: np.ndarray

    @property
    def people(self) -> np.ndarray:
        """The identity of each query that has a relevant image, for intervals over identities."""
        return self.protocol.labels[self.protocol.queries][self.protocol.has_relevant]

    def score(self, found: np.ndarray) -> Scores:
        """Search vectors (m, out) of the test images exactly, by cosine similarity."""
        return search(found, self.protocol)

    def validation(self, images: ImageSet, seed: int = 0) -> "UnseenTask":
        """A task of the known identities alone: a third of them is searched, the others are known.

        images : the known images, in the order of ``known``.
        """
        aside = validation_rows(self.labels, seed)
        protocol = builders.leave_one_out(images.subset(aside), "validation")
        labels = np.unique(self.labels[~aside], return_inverse=True)[1]
        return UnseenTask(protocol, self.known[aside], self.known[~aside], labels)


def validation_rows(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """bool (n,): the rows of a random third of the identities."""
    identities = np.unique(labels)
    return np.isin(labels, np.random.default_rng(seed).permutation(identities)[: len(identities) // 3])


def linear_baselines(task: UnseenTask, dim: int) -> dict[str, Scores]:
    """Name → scores of the vectors themselves and of four linear maps with a closed form.

    dim : number of principal components, at most; whitening uses at most half as many as there are known vectors.
    """
    known, test = task.known, task.test
    most = min(len(known) - 1, known.shape[1])
    pca = PCA(most, svd_solver="full").fit(known)
    white = PCA(min(dim, len(known) // 2, most), whiten=True, svd_solver="full").fit(known)
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE).fit(pca.transform(known), task.labels)
    return {
        "vectors": task.score(test),
        "PCA": task.score(pca.transform(test)[:, :dim]),
        "PCA, whitened": task.score(white.transform(test)),
        "LDA": task.score(lda.transform(pca.transform(test))),
        "WCCN": task.score(metric_heads.within_class_whitening(known, task.labels).apply(test)),
    }


def best_rate(
    task: UnseenTask, rates: Sequence[float], dim: int, epochs: int, seed: int = 0
) -> tuple[float, pd.Series]:
    """The learning rate of a `SupConLoss` head with the best last epoch on a validation task, and all its mAPs."""
    start, loss = metric_heads.principal_axes(task.known, min(dim, len(task.known) - 1)), SupConLoss()
    found = {}
    for rate in rates:
        name = f"11-rate-{rate:g}"
        (head,) = train_heads(task, {name: loss}, start, rate, epochs, [seed])[name]
        found[rate] = head.mean("mAP")
    scores = pd.Series(found, name="validation mAP")
    return float(scores.idxmax()), scores


def train_heads(
    task: UnseenTask, losses: Mapping[str, keras.losses.Loss], start: LinearMap, rate: float, epochs: int,
    seeds: Sequence[int],
) -> dict[str, list[Scores]]:  # fmt: skip
    """Name of each loss → the scores of a linear head for each seed, after the last epoch.

    A seed decides which images meet in a batch.
    """

    def run(name: str, loss: keras.losses.Loss, seed: int) -> Scores:
        head, _ = metric_heads.fit(
            start, task.known, task.labels, loss, name=f"11-head-{name.replace(', ', '-')}", rate=rate, epochs=epochs,
            seed=seed,
        )  # fmt: skip
        return task.score(head.apply(task.test))

    return {name: [run(name, loss, seed) for seed in seeds] for name, loss in losses.items()}


def compare(task: UnseenTask, methods: Mapping[str, Sequence[Scores]], reference: str, seed: int = 0) -> pd.DataFrame:
    """Compare methods with a reference on the same queries; intervals (95 %) and tests draw whole identities.

    methods : name → scores of one or more runs, which are averaged for each query.

    Returns
    -------
    One row per method: method, runs, mAP, low, high, lowest, highest (of the runs), top-1, difference, difference low,
    difference high, p.
    """
    means = {name: mean_scores(runs) for name, runs in methods.items()}
    rows = []
    for name, runs in methods.items():
        values, of_runs = means[name].values["mAP"], [run.mean("mAP") for run in runs]
        low, high = intervals.bootstrap_interval(values, seed=seed, clusters=task.people)
        row = {
            "method": name, "runs": len(runs), "mAP": values.mean(), "low": low, "high": high,
            "lowest": min(of_runs), "highest": max(of_runs), "top-1": means[name].mean("top-1"),
        }  # fmt: skip
        test = intervals.paired_difference(values, means[reference].values["mAP"], seed=seed, clusters=task.people)
        other = {"difference": test.difference, "difference low": test.low, "difference high": test.high}
        rows.append(row | (other | {"p": test.p_value} if name != reference else {}))
    return pd.DataFrame(rows)


def compare_pairs(task: UnseenTask, methods: Mapping[str, Sequence[Scores]], seed: int = 0) -> pd.DataFrame:
    """All pairs of methods: first, second, difference of mAP, p, and p adjusted by Holm's rule."""
    means = {name: mean_scores(runs).values["mAP"] for name, runs in methods.items()}
    rows = []
    for first, second in combinations(methods, 2):
        test = intervals.paired_difference(means[first], means[second], seed=seed, clusters=task.people)
        rows.append((first, second, test.difference, test.p_value))
    table = pd.DataFrame(rows, columns=["first", "second", "difference", "p"])
    return table.assign(adjusted=intervals.holm(table["p"].to_numpy()))


def tune_last_block(
    network: str, learn: ImageSet, test: ImageSet, rate: float, epochs: int, seed: int = 0
) -> tuple[keras.Model, LinearMap, np.ndarray]:
    """Train the last block of a pretrained network by `SupConLoss`, and whiten within classes.

    Returns
    -------
    The whole network, the map on its vectors, and the vectors of ``test`` after both, float32 (m, dim).
    """
    cut = transfer.split_network(network)
    maps = [feature_maps(images, cut) for images in (learn, test)]
    cut.tail.compile(keras.optimizers.Adam(rate), SupConLoss(), jit_compile=False)
    identities = min(16, len(np.unique(learn.labels)))
    training.fit(
        cut.tail, examples.arrays(maps[0], learn.labels), name=f"11-block-{learn.name.split(',')[0]}", epochs=epochs,
        seed=seed, sampler=PKSampler(learn.labels, identities, 4, seed), score=training.last_epoch, progress=False,
    )  # fmt: skip
    known, found = (vectors(cut.tail, one, cache=True) for one in maps)
    last = metric_heads.within_class_whitening(known, learn.labels)
    return cut.whole, last, last.apply(found)
