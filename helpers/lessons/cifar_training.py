"""Trains the networks of `helpers.networks.cifar_networks` on CIFAR-10, and measures their embeddings.

    python -m helpers.lessons.cifar_training --output figures/17_networks_full.csv

The table has one row per network and seed. A row is written when its training ends, and a repeated call trains only
the rows that are missing. Keras may have any backend (variable ``KERAS_BACKEND``).

All networks have the same schedule: AdamW, cosine decay with warm-up, horizontal flips and shifts. Nothing is selected
on the test images: the number of epochs is fixed, and the weights of the last epoch are measured.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from helpers.evaluation.metrics import average_precision
from helpers.files import write_text
from helpers.images import cifar10, reading
from helpers.images.imageset import ImageSet
from helpers.networks import cifar_networks
from helpers.networks.cifar_networks import NETWORKS, SIZE
from helpers.search.index import open_index

if TYPE_CHECKING:
    import keras

#: MAP@K is measured at this K, as in the published study.
MAP_K = 100
#: Random shifts in training, in pixels.
SHIFT = 4


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    rate : maximum learning rate, reached after a warm-up in the first tenth of the steps; cosine decay to zero follows.
    weight_decay : of AdamW.
    """

    epochs: int = 60
    batch_size: int = 128
    rate: float = 1e-3
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.rate <= 0 or self.weight_decay < 0:
            raise ValueError(f"epochs, batch_size and rate must be above 0, weight_decay at least 0; got {self}")


class Pixels(NamedTuple):
    """Images and their classes: uint8 (n, 32, 32, 3) and int64 (n,), of the gallery and of the queries."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    @property
    def classes(self) -> int:
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1


class Measured(NamedTuple):
    """Per query, shape (q,): whether the predicted class and the first result are right, and the AP at `MAP_K`.

    ceiling : the mean of the highest possible AP at `MAP_K`, min(R, 100) / R for R relevant images.
    """

    right: np.ndarray
    first: np.ndarray
    ap: np.ndarray
    ceiling: float


def read_pixels(images: ImageSet) -> np.ndarray:
    """uint8 (n, 32, 32, 3): the pixels of images, which are resized."""
    return np.stack([reading.resize(reading.read_image(path), SIZE) for path in images.paths])


def cifar10_pixels() -> Pixels:
    """CIFAR-10's training and test images."""
    images = cifar10.load()
    pixels, is_test = read_pixels(images), np.array([key.startswith("test/") for key in images.keys])
    return Pixels(pixels[~is_test], images.labels[~is_test], pixels[is_test], images.labels[is_test])


def train(model: "keras.Model", pixels: Pixels, recipe: Recipe, seed: int = 0, verbose: int = 0) -> list[float]:
    """Compile and train a model; returns the mean training loss of each epoch.

    seed : of the order and the augmentation. The initial weights and the dropout follow ``keras.utils.set_random_seed``
        at the time when the model was built.
    """
    import keras

    steps = -(-len(pixels.train) // recipe.batch_size)
    warmup = max(1, recipe.epochs * steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.rate / 10, max(1, recipe.epochs * steps - warmup), warmup_target=recipe.rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)
    # XLA on a CPU takes longer to compile than it saves.
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit)
    history = model.fit(batches(pixels, recipe, seed), epochs=recipe.epochs, verbose=verbose, shuffle=False)
    return [float(loss) for loss in history.history["loss"]]


def batches(pixels: Pixels, recipe: Recipe, seed: int) -> "keras.utils.PyDataset":
    """The augmented batches, float32 (b, 32, 32, 3) in 0 … 1 and int64 (b,), in a new order in each epoch."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.epoch = 0
            self.on_epoch_begin()

        def __len__(self) -> int:
            return -(-len(pixels.train) // recipe.batch_size)

        def on_epoch_begin(self) -> None:
            self.order = np.random.default_rng((seed, self.epoch)).permutation(len(pixels.train))

        def on_epoch_end(self) -> None:
            self.epoch += 1
            self.on_epoch_begin()

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            rows = self.order[index * recipe.batch_size : (index + 1) * recipe.batch_size]
            images = augment(pixels.train[rows], np.random.default_rng((seed, self.epoch, index)))
            return images.astype(np.float32) / 255, pixels.train_labels[rows]

    return Batches()


def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flip each image with probability 0.5, and shift it by up to `SHIFT` pixels in both directions; edges are black.

    images : (b, h, w, 3); returns an array of the same shape and dtype.
    """
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    tops, lefts = rng.integers(2 * SHIFT + 1, size=(2, len(images)))
    flips = rng.random(len(images)) < 0.5
    shifted = [
        image[top : top + height, left : left + width] for image, top, left in zip(padded, tops, lefts, strict=True)
    ]
    return np.stack([image[:, ::-1] if flip else image for image, flip in zip(shifted, flips, strict=True)])


def measure(model: "keras.Model", pixels: Pixels, batch_size: int = 256) -> Measured:
    """Classify the test images, and search the training images for them by the cosine of their embeddings."""
    vectors = cifar_networks.embedder(model)
    gallery, queries = (_predict(vectors, images, batch_size) for images in (pixels.train, pixels.test))
    found = open_index("exact:cosine").add(gallery).search(queries, min(MAP_K, len(gallery)))
    relevant = pixels.train_labels[found.ids] == pixels.test_labels[:, None]
    counts = np.bincount(pixels.train_labels, minlength=pixels.classes)[pixels.test_labels]
    ap = np.array([average_precision(hits, count) for hits, count in zip(relevant, counts, strict=True)])
    right = _predict(model, pixels.test, batch_size).argmax(axis=1) == pixels.test_labels
    return Measured(right, relevant[:, 0], ap, float((np.minimum(counts, MAP_K) / counts).mean()))


def train_and_measure(name: str, pixels: Pixels, recipe: Recipe, seed: int, verbose: int = 0) -> dict:
    """Build, train and measure one network; returns its row of the table.

    ``test accuracy``, ``top-1`` and ``MAP@100`` are means over the test images, with 95 % intervals (normal
    approximation) as ``… low`` and ``… high``; ``seconds`` is the time of the training.
    """
    import keras

    keras.utils.set_random_seed(seed)
    model = NETWORKS[name](classes=pixels.classes)
    start = perf_counter()
    losses = train(model, pixels, recipe, seed, verbose)
    seconds = perf_counter() - start
    if not np.isfinite(losses[-1]):
        raise ArithmeticError(f"{name}, seed {seed}: the loss is {losses[-1]}; lower the learning rate {recipe.rate:g}")
    measured = measure(model, pixels)
    row = _settings(name, seed, recipe, pixels) | {
        "test_images": len(pixels.test), "parameters": model.count_params(),
        "dim": model.get_layer(cifar_networks.EMBEDDING).output.shape[-1], "loss": losses[-1],
    }  # fmt: skip
    for column, values in (
        ("test accuracy", measured.right), ("top-1", measured.first), (f"MAP@{MAP_K}", measured.ap)
    ):  # fmt: skip
        mean, error = float(np.mean(values)), 1.96 * float(np.std(values)) / len(values) ** 0.5
        row |= {column: mean, f"{column} low": mean - error, f"{column} high": mean + error}
    versions = {"backend": keras.backend.backend(), "keras": keras.version(), "seconds": seconds}
    return row | {"ceiling": measured.ceiling} | versions


def complete(path: Path, names: Sequence[str], seeds: int, recipe: Recipe, pixels: Pixels, verbose: int = 0) -> int:
    """Train what the table at ``path`` lacks, and write each row when it is there; returns the number of new rows.

    names : networks of `NETWORKS`. seeds : seeds 0, 1, … of each.
    """
    rows = pd.read_csv(path).to_dict("records") if path.is_file() else []
    before = len(rows)
    for seed, name in product(range(seeds), names):
        settings = _settings(name, seed, recipe, pixels)
        if any(settings.items() <= row.items() for row in rows):
            continue
        rows.append(row := train_and_measure(name, pixels, recipe, seed, verbose))
        write_text(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n"))
        print(f"{name}, seed {seed}: test accuracy {row['test accuracy']:.6g}, {row['seconds']:.6g} s", flush=True)
    return len(rows) - before


def _settings(name: str, seed: int, recipe: Recipe, pixels: Pixels) -> dict:
    """The columns that identify a row."""
    return {"network": name, "seed": seed, **asdict(recipe), "train_images": len(pixels.train)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the table; rows that it has are not trained again")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings of each network")
    parser.add_argument("--verbose", type=int, default=0, help="2 prints a line for each epoch")
    given = parser.parse_args(arguments)
    pixels, recipe = cifar10_pixels(), Recipe(given.epochs)
    added = complete(given.output, given.networks, given.seeds, recipe, pixels, given.verbose)
    print(f"{added} new rows in {given.output}")


def _predict(model: "keras.Model", images: np.ndarray, batch_size: int) -> np.ndarray:
    import keras

    # A call, because `predict` compiles a function for each model, and TensorFlow warns of the fifth one.
    parts = [
        model(images[start : start + batch_size].astype(np.float32) / 255, training=False)
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])


if __name__ == "__main__":
    main()
