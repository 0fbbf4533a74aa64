"""Training of all networks: resumable, cached, and with the weights of the best epoch.

`fit` calls Keras's ``model.fit`` with Keras's callbacks and those in `callbacks`. All random numbers (order, dropout
and augmentation by layers of the model, mined triplets) depend only on the seed and the number of the epoch, so a
training that was killed and resumed ends with the same weights as an uninterrupted one.

The state is saved every few seconds to a file in the cache's folder ``training``. The file name has a fingerprint of
everything that determines the result: architecture, initial weights, optimizer, loss, examples and arguments. A
repeated call resumes an interrupted training, and loads a finished one. Losses and layers are identified by name and
settings: rename them when their code changes.
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

#: Minimum seconds between two saves at the end of an epoch. Epochs of small networks are shorter than a save.
SAVE_EVERY = 5.0


@dataclass(frozen=True)
class Plateau:
    """Multiply the learning rate by ``factor`` after ``patience`` epochs without a better value, down to ``lowest``."""

    factor: float = 0.5
    patience: int = 3
    lowest: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1 or self.patience < 1 or self.lowest < 0:
            raise ValueError(f"a plateau needs 0 < factor < 1, patience ≥ 1 and lowest ≥ 0, got {self}")


@dataclass(frozen=True, eq=False)
class Training:
    """The history of a training.

    table : one row per epoch: ``epoch`` (from 1), ``loss`` and metrics in training, ``val_…`` on the validation
        examples, ``score``, ``learning_rate``, ``seconds`` (without validation). With a score, row 0 is the untrained
        model, with NaN for the loss and seconds.
    best_epoch : the epoch whose weights were kept; 0 is the untrained model.
    monitor : the column that decides the best epoch.
    seconds : in total, with validation.
    computed : epochs that this call computed; 0 if the training was loaded from the cache.
    """

    name: str
    table: "pd.DataFrame"
    best_epoch: int
    monitor: str
    seconds: float
    computed: int


def use_accelerator() -> str:
    """Set mixed precision if all GPUs benefit from it, else float32; returns a description. Call it before building."""
    import keras
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    policy, text = _accelerator([known.get("compute_capability", (0, 0)) for known in details])
    keras.mixed_precision.set_global_policy(policy)
    return text


def _accelerator(capabilities: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """The policy and its description, for the CUDA compute capability of each GPU; 7.0 and above have tensor cores."""
    policy = "mixed_float16" if capabilities and min(capabilities) >= (7, 0) else "float32"
    return policy, f"{len(capabilities)} GPU, {policy}" if capabilities else f"CPU, {policy}"


def fit(
    model: "keras.Model", train: Examples, *, name: str, epochs: int, batch_size: int = 32, seed: int = 0,
    one_hot: int | None = None, sampler: PKSampler | None = None, validation: Examples | None = None,
    score: "Callable[[keras.Model], float] | None" = None, plateau: Plateau | None = None, patience: int | None = None,
    progress: bool = True,
) -> Training:  # fmt: skip
    """Train a compiled model, and keep the weights of its best epoch. The optimizer is reset afterwards.

    A call that fails or is interrupted does not change the model.

    Parameters
    ----------
    name : for progress messages and the file in the cache.
    batch_size : of validation, and of training without a sampler.
    seed : of order, mining, and the model's layers for dropout and augmentation.
    one_hot : number of classes, for a loss of one-hot labels.
    sampler : draws the batches; without one, each epoch is a permutation.
    validation : examples whose loss and metrics are computed after each epoch.
    score : model → number, higher is better, usually a retrieval score. It decides the best epoch, including the
        untrained model; otherwise the validation loss or the training loss does. The code of a score is not part of
        the fingerprint: use different names for scores that agree on the untrained model.
    plateau : lowers the learning rate when the monitored value stops improving.
    patience : number of epochs without improvement after which the training ends.
    progress : print about ten lines, and show a progress bar for long epochs.

    Raises
    ------
    TrainingDiverged : the loss, the monitored value or a weight is NaN or infinite. The saved state is unaffected.
    TrainingStateError : the saved state is damaged, or cannot be written.
    UnreadableImage : an image cannot be read.
    """
    options = (batch_size, seed, one_hot, sampler, validation, score, plateau, patience)
    return Task(model, train, name, epochs, *options).run(progress)


def last_epoch(model: "keras.Model") -> float:
    """A score for `fit` that increases with every step, so that the last epoch is kept."""
    return float(model.optimizer.iterations)


@dataclass(frozen=True, eq=False)
class Task:
    """One call of `fit`."""

    model: "keras.Model"
    train: Examples
    name: str
    epochs: int
    batch_size: int
    seed: int
    one_hot: int | None
    sampler: PKSampler | None
    validation: Examples | None
    score: "Callable[[keras.Model], float] | None"
    plateau: Plateau | None
    patience: int | None

    @property
    def monitor(self) -> str:
        """The column that decides the best epoch."""
        return "score" if self.score else "val_loss" if self.validation is not None else "loss"

    def run(self, progress: bool) -> Training:
        """Train, resume or load; restores the model after an error, and the optimizer always."""
        self.validate()
        model = self.model
        # Building the optimizer of mixed precision twice would duplicate its variables.
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        path = paths.cache_dir() / "training" / f"{self.name}-{self.fingerprint()}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        first_weights, first_optimizer = model.get_weights(), [part.numpy() for part in model.optimizer.variables]
        with FileLock(path.with_name(path.name + ".lock")):
            try:
                return self.train_from(path, progress)
            except BaseException:
                model.set_weights(first_weights)
                raise
            finally:
                for variable, value in zip(model.optimizer.variables, first_optimizer, strict=True):
                    variable.assign(value)

    def train_from(self, path: Path, progress: bool) -> Training:
        """Train from the state at ``path``, if there is one."""
        import pandas as pd

        from helpers.networks.callbacks import Backup, Epochs, Report

        start, rows = perf_counter(), list[dict]()
        epochs = Epochs(self, rows)
        stopping = self.keras_callbacks()
        backup = Backup(path, self.name, rows, SAVE_EVERY, stopping)
        report = Report(backup)
        for callback in (epochs, backup):
            callback.set_model(self.model)
        validation = self.validation and self.validation.batches(
            np.arange(len(self.validation)), self.batch_size, self.one_hot
        )
        first = epochs.scored()
        done = backup.load(first)
        if progress and done:
            cached = f"trained before ({done} epochs, {backup.seconds:.0f} s), loaded from the cache"
            print(f"{self.name}: {cached if backup.finished else f'resumed after epoch {done}'}")
        if first and not rows:
            backup.begin(self.untrained(validation) | first, perf_counter() - start)
            if progress:
                print(report.line(self.epochs))
        if backup.finished:
            self.model.set_weights(backup.best)
        else:
            callbacks = [epochs, *stopping, backup, *([report] if progress else [])]
            with self.train.original_errors(), (self.validation or self.train).original_errors():
                batches, steps = self.batches(done)
                # With a number of steps, Keras makes one iterator of a pass instead of two.
                passes = validation and {"validation_data": validation.repeat(), "validation_steps": len(validation)}
                self.model.fit(
                    batches, steps_per_epoch=steps, callbacks=callbacks, epochs=self.epochs, initial_epoch=done,
                    verbose=0, shuffle=False, **(passes or {}),
                )  # fmt: skip
        # The last row has all columns in the order to display.
        table = pd.DataFrame(rows, columns=list(rows[-1]))
        computed = int(table["epoch"].iloc[-1]) - done
        return Training(self.name, table, backup.best_epoch, self.monitor, backup.seconds, computed)

    def keras_callbacks(self) -> "list[keras.callbacks.Callback]":
        """`EarlyStopping`, which finds the best epoch, and `ReduceLROnPlateau` for a plateau."""
        from keras.callbacks import EarlyStopping, ReduceLROnPlateau

        by = {"monitor": self.monitor, "mode": "max" if self.score else "min"}
        patience = self.epochs if self.patience is None else self.patience
        stopping = EarlyStopping(**by, patience=patience, restore_best_weights=True)
        if self.plateau is None:
            return [stopping]
        factor, patience, lowest = self.plateau.factor, self.plateau.patience, self.plateau.lowest
        return [stopping, ReduceLROnPlateau(**by, factor=factor, patience=patience, min_lr=lowest, min_delta=0)]

    def untrained(self, validation: "tf.data.Dataset | None") -> dict:
        """The row of epoch 0."""
        row: dict[str, float] = {"epoch": 0, "loss": np.nan}
        if self.validation is not None:
            with self.validation.original_errors():
                values = self.model.evaluate(validation, verbose=0, return_dict=True)
            row |= {f"val_{key}": float(value) for key, value in values.items()}
        return row | {"learning_rate": float(self.model.optimizer.learning_rate), "seconds": np.nan}

    def batches(self, first: int) -> "tuple[tf.data.Dataset, int]":
        """The training batches from this epoch on, see `Examples.epochs`, and the number of batches in an epoch."""

        def rows(epoch: int) -> np.ndarray:
            if self.sampler is not None:
                return self.sampler.epoch(epoch).ravel()
            return np.random.default_rng((self.seed, epoch)).permutation(len(self.train))

        if self.sampler is not None:
            size, steps = self.sampler.p * self.sampler.k, len(self.sampler)
        else:
            size, steps = self.batch_size, -(-len(self.train) // self.batch_size)
        return self.train.epochs(rows, range(first, self.epochs), size, self.one_hot), steps

    def fingerprint(self) -> str:
        """A hash of everything that determines the result; the optimizer must be built."""
        sampler = self.sampler
        settings = {
            "epochs": self.epochs, "batch_size": self.batch_size, "seed": self.seed, "one_hot": self.one_hot,
            # As in existing fingerprints; augmentation is part of the model.
            "augmentation": None,
            "sampler": sampler
            and [sampler.p, sampler.k, sampler.seed, hashlib.sha256(sampler.epoch(0).data).hexdigest()],
            "validation": self.validation and self.validation.fingerprint, "score": self.score is not None,
            "plateau": self.plateau and asdict(self.plateau), "patience": self.patience,
        }  # fmt: skip
        return fingerprints.of_training(self.model, self.train, settings)

    def validate(self) -> None:
        """Raise ValueError for arguments that would fail late or silently."""
        import keras

        name, one_hot, sampler = self.name, self.one_hot, self.sampler
        if not name or Path(name).name != name:
            raise ValueError(f"name is part of a file's name, so it cannot be empty or contain a slash; got {name!r}")
        if not getattr(self.model, "compiled", False):
            raise ValueError(f"{name}: compile the model first: model.compile(optimizer=…, loss=…)")
        if min(self.epochs, self.batch_size, 1 if self.patience is None else self.patience) < 1 or self.seed < 0:
            raise ValueError(
                f"{name}: epochs, batch_size and patience must be at least 1, and seed at least 0; "
                f"got {self.epochs}, {self.batch_size}, {self.patience} and {self.seed}"
            )
        for part, examples in (("train", self.train), ("validation", self.validation)):
            if examples is not None and one_hot is not None and examples.labels.max() >= one_hot:
                raise ValueError(
                    f"{name}: {part} has the label {examples.labels.max()}, but one_hot={one_hot} has no such class"
                )
        # The rate of a schedule is computed for each step and cannot be lowered.
        if self.plateau is not None and not isinstance(self.model.optimizer.learning_rate, keras.Variable):
            raise ValueError(f"{name}: the learning rate follows a schedule; use either the schedule or the plateau")
        if sampler is None:
            return
        rows = sampler.epoch(0)
        if rows.max() >= len(self.train):
            raise ValueError(f"{name}: the sampler draws row {rows.max()}, but there are {len(self.train)} examples")
        drawn = self.train.labels[rows].reshape(-1, sampler.k)
        if (drawn != drawn[:, :1]).any():
            raise ValueError(f"{name}: the sampler was created for labels other than those of the examples")
