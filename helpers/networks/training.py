"""Training: one function for all networks. A training that was killed goes on, and the best epoch is kept.

`fit` calls Keras's ``model.fit`` with Keras's callbacks and those in `callbacks`. What is random (order, augmentation,
dropout, mined triplets) depends only on the seed and the number of the epoch, so a training that was killed and
resumed ends with the same weights as one that was not.

The state is saved every few seconds in one file under ``training/`` in the cache. Its name has a fingerprint of all
that decides the result: the architecture, first weights, optimizer, loss, examples and arguments. A call that was
interrupted therefore goes on when it is repeated, and a call that was finished only loads. Code counts by its name and
settings: rename a loss or layer when its code changes.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from helpers import paths
from helpers.networks import fingerprints
from helpers.networks.examples import Examples
from helpers.networks.samplers import PKSampler

if TYPE_CHECKING:
    import keras
    import pandas as pd
    import tensorflow as tf

    from helpers.images.augmentation import Augmentation

#: The state is saved at the end of an epoch if the last saving was so many seconds ago, because a small network trains
#: faster than its state is written.
KEEP_EVERY = 5.0


@dataclass(frozen=True)
class Plateau:
    """Lower the learning rate by ``factor`` after ``patience`` epochs without a better value, down to ``lowest``.

    Raises
    ------
    ValueError : a factor outside 0 … 1, a patience below 1 or a lowest rate below 0.
    """

    factor: float = 0.5
    patience: int = 3
    lowest: float = 1e-5

    def __post_init__(self):
        if not 0 < self.factor < 1 or self.patience < 1 or self.lowest < 0:
            raise ValueError(f"a plateau needs 0 < factor < 1, patience ≥ 1 and lowest ≥ 0, got {self}")


@dataclass(frozen=True, eq=False)
class Training:
    """How a training went. The model itself holds the weights of the best epoch.

    Attributes
    ----------
    name : what it was called.
    table : one row an epoch: ``epoch`` (from 1), ``loss`` and the metrics in training, ``val_…`` on the validation
        examples, ``score``, ``learning_rate``, ``seconds`` (learning alone, without validation). With a score there is
        a row of epoch 0, too: the untrained model; what only training gives is NaN there.
    best_epoch : the one whose weights the model has; 0 if with a score no epoch was better than the untrained model.
    monitor : the column that chose it.
    seconds : all of it, validation included, wherever it was computed.
    computed : epochs computed in this call; 0 when the whole training lay in the cache.
    """

    name: str
    table: "pd.DataFrame"
    best_epoch: int
    monitor: str
    seconds: float
    computed: int

    @property
    def best(self) -> "pd.Series":
        """The row of the best epoch."""
        return self.table[self.table["epoch"] == self.best_epoch].iloc[0]


def use_accelerator() -> str:
    """Mixed precision where a GPU gains by it, else float32; call it before networks are built. Says what it chose."""
    import keras
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    policy, text = _accelerator([known.get("compute_capability", (0, 0)) for known in details])
    keras.mixed_precision.set_global_policy(policy)
    return text


def _accelerator(capabilities: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """The policy and what to say of it; one CUDA compute capability a GPU, from 7.0 on with tensor cores."""
    policy = "mixed_float16" if capabilities and min(capabilities) >= (7, 0) else "float32"
    return policy, f"{len(capabilities)} GPU, {policy}" if capabilities else f"CPU, {policy}"


def fit(
    model: "keras.Model",
    train: Examples,
    *,
    name: str,
    epochs: int,
    batch_size: int = 32,
    seed: int = 0,
    one_hot: int | None = None,
    augmentation: "Augmentation | None" = None,
    sampler: PKSampler | None = None,
    validation: Examples | None = None,
    score: "Callable[[keras.Model], float] | None" = None,
    plateau: Plateau | None = None,
    patience: int | None = None,
    progress: bool = True,
) -> Training:
    """Train a compiled model; afterwards it has the weights of its best epoch, and its optimizer is as before.

    A call that fails or is interrupted leaves the model as it was.

    Parameters
    ----------
    name : for the progress lines and the file in the cache.
    batch_size : of validation, and of training without a sampler, whose batches have p · k rows.
    seed : of order, augmentation, dropout and mining.
    one_hot : the number of classes, for a loss that takes one-hot labels.
    augmentation : applied to the inputs of each batch; a recipe that mixes images needs ``one_hot``.
    sampler : draws the batches, e.g. identities × images; without one each epoch is a permutation.
    validation : its loss and metrics are computed after each epoch, without augmentation.
    score : model → a number, higher is better, usually a retrieval score. It decides which epoch is the best, the
        untrained model included. Without it the validation loss decides, or the training loss. The code of a score
        has no fingerprint: give two scores that agree on the untrained model two names.
    plateau : lowers the learning rate when the deciding value stops getting better.
    patience : ends the training after so many epochs without a better value.
    progress : print about ten lines, and show a bar for epochs that take long.

    Raises
    ------
    TrainingDiverged : the loss, the deciding value or a weight is NaN or infinite; the saved state is from before.
    TrainingStateError : the saved state is damaged, or can't be written.
    UnreadableImage : an image can't be read.
    ValueError : the model is not compiled, the arguments don't fit together, or a score is NaN or infinite.
    """
    options = (batch_size, seed, one_hot, augmentation, sampler, validation, score, plateau, patience)
    return _Task(model, train, name, epochs, *options).run(progress)


def last_epoch(model: "keras.Model") -> float:
    """A score for `fit` that rises with every step, so that the last epoch is kept: for a number decided before."""
    return float(model.optimizer.iterations)


def forget(name: str) -> int:
    """Delete the saved trainings called ``name``; the number of trainings deleted."""
    # A longer name may begin alike: the fingerprint has no hyphen.
    files = [path for path in (paths.cache_dir() / "training").glob("*.npz") if path.stem.rpartition("-")[0] == name]
    for path in files:
        path.unlink()
    return len(files)


@dataclass(frozen=True, eq=False)
class _Task:
    """The arguments of one call of `fit`."""

    model: "keras.Model"
    train: Examples
    name: str
    epochs: int
    batch_size: int
    seed: int
    one_hot: int | None
    augmentation: "Augmentation | None"
    sampler: PKSampler | None
    validation: Examples | None
    score: "Callable[[keras.Model], float] | None"
    plateau: Plateau | None
    patience: int | None

    @property
    def monitor(self) -> str:
        """The column that decides."""
        return "score" if self.score else "val_loss" if self.validation is not None else "loss"

    def run(self, progress: bool) -> Training:
        """Train, or load what was trained before."""
        self.check()
        model = self.model
        # The optimizer of mixed precision gets variables twice if it is built twice.
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        path = paths.cache_dir() / "training" / f"{self.name}-{self.fingerprint()}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        first_weights, first_optimizer = model.get_weights(), [part.numpy() for part in model.optimizer.variables]
        with FileLock(path.with_name(path.name + ".lock")):
            try:
                return self.trained(path, progress)
            except BaseException:
                model.set_weights(first_weights)
                raise
            finally:
                for variable, value in zip(model.optimizer.variables, first_optimizer, strict=True):
                    variable.assign(value)

    def trained(self, path: Path, progress: bool) -> Training:
        """Continue from the file at ``path``, which is locked."""
        import pandas as pd

        from helpers.networks.callbacks import Backup, Epochs, Report

        start, rows = perf_counter(), []
        epochs = Epochs(self.name, self.monitor, self.seed, self.score, self.augmentation, rows)
        stopping = self.keras_callbacks()
        backup = Backup(path, self.name, rows, KEEP_EVERY, stopping)
        report = Report(backup)
        for callback in (epochs, backup):
            callback.set_model(self.model)
        validation = self.validation and self.validation.batches(
            np.arange(len(self.validation)), self.batch_size, self.one_hot
        )
        first = epochs.scored()
        done = backup.load(first)
        if progress and done:
            taken = f"trained before ({done} epochs, {backup.seconds:.0f} s), taken from the cache"
            print(f"{self.name}: {taken if backup.finished else f'goes on after epoch {done}'}")
        if first and not rows:
            backup.begin(self.untrained(validation) | first, perf_counter() - start)
            if progress:
                print(report.line(self.epochs))
        if backup.finished:
            self.model.set_weights(backup.best)
        else:
            callbacks = [epochs, *stopping, backup, *([report] if progress else [])]
            with self.train.own_errors(), (self.validation or self.train).own_errors():
                self.model.fit(
                    self.batches(lambda: epochs.epoch), validation_data=validation, callbacks=callbacks,
                    epochs=self.epochs, initial_epoch=done, verbose=0, shuffle=False,
                )  # fmt: skip
        # The last row has all columns, in the order to show them.
        table = pd.DataFrame(rows, columns=list(rows[-1]))
        computed = int(table["epoch"].iloc[-1]) - done
        return Training(self.name, table, backup.best_epoch, self.monitor, backup.seconds, computed)

    def keras_callbacks(self) -> "list[keras.callbacks.Callback]":
        """Keras's own: `EarlyStopping`, which finds the best epoch, and `ReduceLROnPlateau` where it is wanted."""
        import keras

        how = {"monitor": self.monitor, "mode": "max" if self.score else "min"}
        patience = self.epochs if self.patience is None else self.patience
        found = [keras.callbacks.EarlyStopping(**how, patience=patience, restore_best_weights=True)]
        if self.plateau is not None:
            factor, patience, lowest = self.plateau.factor, self.plateau.patience, self.plateau.lowest
            found.append(
                keras.callbacks.ReduceLROnPlateau(**how, factor=factor, patience=patience, min_lr=lowest, min_delta=0)
            )
        return found

    def untrained(self, validation: "tf.data.Dataset | None") -> dict:
        """The row of epoch 0; what only training gives is NaN."""
        row = {"epoch": 0, "loss": np.nan}
        if validation is not None:
            with self.validation.own_errors():
                values = self.model.evaluate(validation, verbose=0, return_dict=True)
            row |= {f"val_{key}": float(value) for key, value in values.items()}
        return row | {"learning_rate": float(self.model.optimizer.learning_rate), "seconds": np.nan}

    def batches(self, epoch: Callable[[], int]) -> "tf.data.Dataset":
        """The batches of the epoch that ``epoch`` names when a pass over them begins."""
        import tensorflow as tf

        def rows() -> np.ndarray:
            if self.sampler is not None:
                return self.sampler.epoch(epoch()).ravel()
            return np.random.default_rng((self.seed, epoch())).permutation(len(self.train))

        size = self.batch_size if self.sampler is None else self.sampler.p * self.sampler.k
        plain = self.train.batches(rows, size, self.one_hot)
        if self.augmentation is None:
            return plain
        augment, mixes = self.augmentation, self.augmentation.recipe.mixes

        @tf.function
        def change(inputs, labels):
            if not mixes:
                return augment(inputs, training=True), labels
            mixed = augment({"images": inputs, "labels": labels}, training=True)
            return mixed["images"], mixed["labels"]

        return plain.map(change).prefetch(2)

    def fingerprint(self) -> str:
        """Of all that decides the result; the optimizer must be built."""
        augmentation, sampler = self.augmentation, self.sampler
        settings = {
            "epochs": self.epochs, "batch_size": self.batch_size, "seed": self.seed, "one_hot": self.one_hot,
            "augmentation": augmentation and {"recipe": augmentation.recipe.name, "seed": augmentation.seed},
            "sampler": sampler and [sampler.p, sampler.k, sampler.seed, hashlib.sha256(sampler.epoch(0)).hexdigest()],
            "validation": self.validation and self.validation.fingerprint, "score": self.score is not None,
            "plateau": self.plateau and asdict(self.plateau), "patience": self.patience,
        }  # fmt: skip
        return fingerprints.of_training(self.model, self.train, settings)

    def check(self) -> None:
        """Refuse what would fail late or go wrong silently."""
        import keras

        name, one_hot, sampler = self.name, self.one_hot, self.sampler
        if not name or Path(name).name != name:
            raise ValueError(f"name becomes part of a file's name, so it can't be empty or hold a slash; got {name!r}")
        if not getattr(self.model, "compiled", False):
            raise ValueError(f"{name}: compile the model first: model.compile(optimizer=…, loss=…)")
        if min(self.epochs, self.batch_size, 1 if self.patience is None else self.patience) < 1 or self.seed < 0:
            raise ValueError(
                f"{name}: epochs, batch_size and patience must be at least 1, and seed at least 0; "
                f"got {self.epochs}, {self.batch_size}, {self.patience} and {self.seed}"
            )
        if self.augmentation is not None and self.augmentation.recipe.mixes and one_hot is None:
            raise ValueError(f"{name}: {self.augmentation.recipe.name} mixes labels: give one_hot=<number of classes>")
        for part, examples in (("train", self.train), ("validation", self.validation)):
            if examples is not None and one_hot is not None and examples.labels.max() >= one_hot:
                raise ValueError(f"{name}: {part} has the label {examples.labels.max()}, but one_hot={one_hot} classes")
        # The rate of a schedule is computed anew at each step, so it can't be lowered.
        if self.plateau is not None and not isinstance(self.model.optimizer.learning_rate, keras.Variable):
            raise ValueError(f"{name}: the learning rate follows a schedule; take either the schedule or the plateau")
        if sampler is None:
            return
        rows = sampler.epoch(0)
        if rows.max() >= len(self.train):
            raise ValueError(f"{name}: the sampler draws row {rows.max()}, but there are {len(self.train)} examples")
        drawn = self.train.labels[rows].reshape(-1, sampler.k)
        if (drawn != drawn[:, :1]).any():
            raise ValueError(f"{name}: the sampler was made for other labels than these examples have")
