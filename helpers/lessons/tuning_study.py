"""A study of hyper-parameter search on CIFAR-10: ASHA, training of all trials, and random search at equal epochs.

Run it by ``python -m helpers.lessons.tuning_study``. It writes three tables for notebook 17. A second call resumes. The
settings were chosen before the first run, except for the reduction factor. The first run used 3, and ASHA then trained
more than half of the epochs of the small CNN. The present value, 4, is Ray Tune's default. It was chosen when the
scores of the first run were known.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import extras, paths
from helpers.evaluation.intervals import wilson_interval
from helpers.images import cifar10
from helpers.images.imageset import ImageSet
from helpers.lessons.cifar_training import read_pixels
from helpers.networks import cifar_networks, tuning
from helpers.networks.ray_cluster import cluster
from helpers.networks.trials import Data
from helpers.networks.tuning import SearchResult

if TYPE_CHECKING:
    import keras

NETWORKS = ("fully_connected", "small_cnn")
SEEDS = (0, 1, 2)
TRIALS, EPOCHS, GRACE_PERIOD, REDUCTION_FACTOR, BATCH_SIZE = 16, 12, 2, 4, 64
#: Images of each class for training and validation, all from the training images of CIFAR-10.
PER_CLASS = (200, 100)

#: Tables of the notebook: one row per network and seed, one row per trial, and the networks that ASHA chose.
COMPARISON, TRIALS_TABLE = "17_cifar10_study_tuning_full.csv", "17_cifar10_study_trials_full.csv"
CHOSEN = "17_cifar10_study_chosen_full.csv"


def build(network: str, *, learning_rate: float, weight_decay: float, **architecture: Any) -> "keras.Model":
    """A network of `helpers.networks.cifar_networks`, compiled with AdamW.

    network : its function, ``"fully_connected"`` or ``"small_cnn"``. architecture : its hyper-parameters.
    """
    import keras

    model = getattr(cifar_networks, network)(**architecture)
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    model.compile(optimizer, loss="sparse_categorical_crossentropy")
    return model


def space(network: str) -> dict[str, Any]:
    """The hyper-parameters of the study: name → domain of Ray Tune."""
    with extras.importing("ray"):
        from ray import tune

    return {
        "learning_rate": tune.loguniform(1e-4, 3e-2),
        "weight_decay": tune.loguniform(1e-5, 1e-1),
        "layers": tune.choice([1, 2, 3]),
        "units": tune.choice({"fully_connected": [32, 64, 128, 256], "small_cnn": [4, 8, 16]}[network]),
        "dropout": tune.uniform(0.0, 0.5),
    }


def divide(images: ImageSet, train: int, validation: int, seed: int = 0) -> tuple[Data, Data]:
    """Draw images of each class for training and for validation, without overlap: pixels in 0 … 1, and labels.

    Raises ValueError: a class has fewer than ``train + validation`` images.
    """
    random = np.random.default_rng(seed)
    rows = []
    for number, class_name in enumerate(images.class_names):
        members = np.flatnonzero(images.labels == number)
        if len(members) < train + validation:
            raise ValueError(f"{class_name} has {len(members)} images, fewer than {train} + {validation}")
        rows.append(random.permutation(members)[: train + validation])
    chosen = np.array(rows)
    return _data(images, chosen[:, :train].ravel()), _data(images, chosen[:, train:].ravel())


def _data(images: ImageSet, rows: np.ndarray) -> Data:
    return read_pixels(images.subset(rows)).astype(np.float32) / 255, images.labels[rows]


def compare(network: str, seed: int, folder: Path, progress: bool = True) -> dict[str, SearchResult]:
    """Run both searches with the same trials: ``"all epochs"`` and ``"ASHA"``.

    The test images of CIFAR-10 are not used.
    """
    train, validation = divide(_part("train/"), *PER_CLASS, seed=seed)
    results = {}
    for name, grace_period in (("all epochs", None), ("ASHA", GRACE_PERIOD)):
        results[name] = tuning.search(
            partial(build, network), space(network), train, validation,
            folder=folder / f"{network}-{seed}-{name.replace(' ', '-').lower()}", epochs=EPOCHS, trials=TRIALS,
            grace_period=grace_period, reduction_factor=REDUCTION_FACTOR, batch_size=BATCH_SIZE, seed=seed,
            progress=progress,
        )  # fmt: skip
    return results


def on_test_images(network: str, seed: int, chosen: SearchResult) -> dict[str, float]:
    """The accuracy of the chosen network on the test images of CIFAR-10, with a 95 % interval.

    The network is trained again, see `helpers.networks.tuning.best_model`; its validation images are not added.
    """
    train, validation = divide(_part("train/"), *PER_CLASS, seed=seed)
    model = tuning.best_model(partial(build, network), chosen, train, batch_size=BATCH_SIZE, seed=seed)
    images = _part("test/")
    found = tuning.accuracy(model, _data(images, np.arange(len(images))))
    low, high = wilson_interval(found, len(images))
    return {
        "trial": chosen.best_trial, "best_epoch": 1 + int(np.argmax(chosen.scores[chosen.best_trial])),
        "validation_accuracy": chosen.best_score, "repeated": tuning.accuracy(model, validation),
        "test_accuracy": found, "low": low, "high": high, "test_images": len(images),
    }  # fmt: skip


def _part(prefix: str) -> ImageSet:
    return cifar10.load().where(lambda key: key.startswith(prefix))


def comparison(full: SearchResult, asha: SearchResult) -> dict[str, float]:
    """The epochs that ASHA saved, the best scores, and the score of random search with as many epochs.

    Random search trains as many trials fully as the epochs of ASHA allow. ``random_score`` is its expected best score
    for trials drawn from those of ``full``.
    """
    random_trials = max(1, asha.epochs // asha.max_epochs)
    best = [max(curve) for curve in full.scores]
    return {
        "trials": len(best), "epochs": full.epochs, "asha_epochs": asha.epochs,
        "asha_share": asha.epochs / full.epochs, "best_score": full.best_score, "asha_score": asha.best_score,
        "asha_difference": asha.best_score - full.best_score, "random_trials": random_trials,
        "random_score": tuning.expected_best(best, random_trials),
    }  # fmt: skip


def tables(searches: "Sequence[tuple[str, int, dict[str, SearchResult]]]") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of `comparison`, one row per network and seed, and the table of all trials."""
    rows = [
        {"network": network, "seed": seed, **comparison(found["all epochs"], found["ASHA"])}
        for network, seed, found in searches
    ]
    trials = [
        result.table.drop(columns="seconds").assign(network=network, seed=seed, search=name)
        for network, seed, found in searches
        for name, result in found.items()
    ]
    every = pd.concat(trials, ignore_index=True)
    first = ["network", "seed", "search"]
    return pd.DataFrame(rows), every[first + [name for name in every if name not in first]]


def main() -> None:
    """Run the study, and write its tables."""
    searches = []
    with cluster(workers=1):  # one for all searches, because starting Ray takes long
        for seed, network in product(SEEDS, NETWORKS):
            print(f"{network}, seed {seed}", flush=True)
            searches.append((network, seed, compare(network, seed, paths.cache_dir() / "tuning")))
    on_test = pd.DataFrame(
        {"network": network, "seed": seed, **on_test_images(network, seed, found["ASHA"])}
        for network, seed, found in searches
    )
    for table, name in zip((*tables(searches), on_test), (COMPARISON, TRIALS_TABLE, CHOSEN), strict=True):
        file = paths.figures_dir() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(file, index=False, float_format="%.6f", lineterminator="\n")
        print(f"{file} is written")


if __name__ == "__main__":
    main()
