"""Training: one function for all networks, that can be killed and goes on, and keeps the best by what we search with.

A compiled Keras model goes in; what is drawn at random (the order, augmentation, dropout, mined triplets) depends on
the seed and the epoch's number alone, so a training that was killed ends as an unbroken one does.
"""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from helpers import paths
from helpers.files import write_atomically
from helpers.networks.examples import Examples
from helpers.networks.samplers import PKSampler

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from helpers.pictures.augmentation import Augmentation

#: Part of every fingerprint: raise it when the same call would train otherwise.
VERSION = 2
#: The state is written when an epoch ends and the last writing was so many seconds ago; a kill costs that much at most,
#: and the epoch it fell into. Small networks learn faster than their state is written.
KEEP_EVERY = 5.0
#: By so much, relatively, the score of one untrained model may differ between two calls.
SCORE_TOLERANCE = 0.005


class TrainingDiverged(ArithmeticError):
    """The loss, what is watched, or a weight is no number any more."""


class TrainingStateError(OSError):
    """The state of a training can't be written or read; the message names the file and the remedy."""


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
    """Train a compiled model; afterwards it has the weights of its best epoch.

    The state is kept every few seconds in one file under ``training/`` in the cache, by a fingerprint of everything
    that matters (architecture, first weights, optimiser, loss, examples, the arguments below). So a call that was
    killed goes on, and a call that was finished once only loads.

    The optimiser is afterwards what it was before, whether the training was computed or loaded. A call that fails or
    is interrupted leaves the model, too, as it was, so the same call again goes on.

    Parameters
    ----------
    model : compiled. Give it ``jit_compile=False`` where a layer can't be compiled.
    name : for the progress lines and the file in the cache.
    epochs : at most so many.
    batch_size : of validation, and of training without a sampler, whose batches have p · k rows.
    seed : of order, augmentation, dropout and mining.
    one_hot : the number of classes, for a loss that wants one-hot labels.
    augmentation : applied to the inputs, batch by batch; a recipe that mixes pictures needs ``one_hot``.
    sampler : draws the batches, e.g. identities × pictures; without one each epoch is a permutation.
    validation : its loss and metrics are computed after each epoch (without augmentation).
    score : model → a number, higher is better, usually a retrieval score on validation pictures; decides which epoch
        is the best, the untrained model (epoch 0) included. Without it the validation loss decides, without that the
        training loss. What a function does can't be fingerprinted, so a kept training is taken only if the untrained
        model scores as it did then; two scores that agree on it need two names.
    plateau : lowers the learning rate when that value stops getting better.
    patience : ends the training after so many epochs without a better value.
    progress : print about ten lines, and a bar for epochs that take long.

    Code of your own counts by its name and settings: rename a loss or layer whose code changes.

    Raises
    ------
    TrainingDiverged : the loss, what decides, or a weight is NaN or infinite; what was kept is from before.
    TrainingStateError : what was kept is damaged, or can't be written.
    UnreadablePicture : a picture can't be read.
    ValueError : the model is not compiled, the arguments don't fit together, or a score is NaN or infinite.
    """
    import pandas as pd

    _check(model, train, name, epochs, batch_size, seed, one_hot, augmentation, sampler, validation, plateau, patience)
    # The optimiser of mixed precision gets variables twice if it is built twice.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    settings = {
        "epochs": epochs, "batch_size": batch_size, "seed": seed, "one_hot": one_hot,
        "augmentation": augmentation and {"recipe": augmentation.recipe.name, "seed": augmentation.seed},
        "sampler": sampler and [sampler.p, sampler.k, sampler.seed, hashlib.sha256(sampler.epoch(0)).hexdigest()],
        "validation": validation and validation.fingerprint, "score": score is not None,
        "plateau": plateau and asdict(plateau), "patience": patience,
    }  # fmt: skip
    path = paths.cache_dir() / "training" / f"{name}-{_fingerprint(model, train, settings)}.npz"
    first_weights, first_optimizer = _values(model.weights), _values(model.optimizer.variables)
    augment = augmentation and _augmented(augmentation)

    def batches(epoch: int):
        order = np.random.default_rng((seed, epoch)).permutation(len(train))
        rows = order if sampler is None else sampler.epoch(epoch).ravel()
        ordered = train.batches(rows, batch_size if sampler is None else sampler.p * sampler.k, one_hot)
        return ordered.map(augment).prefetch(2) if augment else ordered

    @cache
    def validation_batches():
        return validation.batches(np.arange(len(validation)), batch_size, one_hot)

    def validated() -> dict:
        if validation is None:
            return {}
        with validation.own_errors():
            values = model.evaluate(validation_batches(), verbose=0, return_dict=True)
        return {f"val_{key}": float(value) for key, value in values.items()}

    def scored() -> dict:
        if score is None:
            return {}
        value = float(score(model))
        if not np.isfinite(value):
            raise ValueError(f"{name}: the score of a model must be a finite number, got {value}")
        return {"score": value}

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        monitor = "score" if score else "val_loss" if validation is not None else "loss"
        run = _Run(model, path, name, monitor, epochs, plateau, patience)
        try:
            start = perf_counter()
            first = scored()
            done = run.resume(first)
            if progress and done:
                taken = f"trained before ({done} epochs, {run.seconds:.0f} s), taken from the cache"
                print(f"{name}: {taken if run.finished else f'goes on after epoch {done}'}")
            if first and not run.rows:
                rate = float(model.optimizer.learning_rate)
                row = {"epoch": 0, "loss": np.nan, **validated(), **first, "learning_rate": rate, "seconds": np.nan}
                run.begin(row, perf_counter() - start)
                if progress:
                    print(run.line())
            for epoch in range(done, epochs if not run.finished else done):
                start = perf_counter()
                _reseed(model, augmentation, seed, epoch)
                rate = float(model.optimizer.learning_rate)
                data = batches(epoch)
                bars = [_bar(f"{name} · epoch {epoch + 1}", len(data))] if progress else []
                with train.own_errors():
                    logs = model.fit(data, verbose=0, shuffle=False, callbacks=bars).history
                row = {"epoch": epoch + 1} | {key: float(values[-1]) for key, values in logs.items()}
                seconds = perf_counter() - start
                run.check_finite(row["loss"], "loss", epoch + 1, rate)
                run.add(row | validated() | scored() | {"learning_rate": rate, "seconds": seconds}, start)
                if progress and (run.finished or epoch % -(-epochs // 10) == 0):
                    print(run.line())
                if run.finished:
                    break
            _assign(model.weights, run.best)
        except BaseException:
            _assign(model.weights, first_weights)
            raise
        finally:
            _assign(model.optimizer.variables, first_optimizer)
    # The last row has all columns, in the order to show them.
    table = pd.DataFrame(run.rows, columns=list(run.rows[-1]))
    return Training(name, table, run.best_epoch, run.monitor, run.seconds, int(table["epoch"].iloc[-1]) - done)


def last_epoch(model: "keras.Model") -> float:
    """A score for `fit` that rises with every step, so that the last epoch is kept: for a number decided before."""
    return float(model.optimizer.iterations)


def forget(name: str) -> int:
    """Delete what `fit` keeps of the trainings called ``name``; the number of trainings deleted."""
    # A longer name may begin alike: the fingerprint has no hyphen.
    files = [
        path for path in (paths.cache_dir() / "training").glob("*.npz") if path.stem.rpartition("-")[0] == name
    ]  # fmt: skip
    for path in files:
        path.unlink()
    return len(files)


class _Run:
    """The state of one training, in memory and on disk."""

    #: What is kept as text, beside weights and optimiser.
    TEXT = ("rows", "best_epoch", "since_best", "since_lowered", "finished", "seconds")

    def __init__(self, model, path: Path, name: str, monitor: str, epochs: int, plateau: Plateau | None, patience):
        self.model, self.path, self.name, self.monitor = model, path, name, monitor
        self.epochs, self.plateau, self.patience = epochs, plateau, patience
        self.rows: list[dict] = []
        self.best: list[np.ndarray] = []
        self.best_epoch, self.since_best, self.since_lowered = 0, 0, 0
        self.finished, self.seconds = False, 0.0
        self.kept_at = perf_counter()

    def resume(self, first: dict) -> int:
        """Epochs that are done; the model and its optimiser stand where they stood after them.

        first : the score of the untrained model; empty without one.
        """
        if not self.path.is_file():
            return 0
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                known = json.loads(kept["state"].tobytes())
                read = {
                    part: [kept[key] for key in sorted(kept.files) if key.startswith(part)] for part in ("best", "now")
                }
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingStateError(
                f"{self.path} is damaged ({error}). Delete it, or call training.forget({self.name!r}): "
                "the training then begins anew"
            ) from error
        if first and not np.isclose(first["score"], known["rows"][0]["score"], rtol=SCORE_TOLERANCE, atol=1e-6):
            warnings.warn(
                f"{self.name} was trained with another score ({known['rows'][0]['score']:.4f} for the untrained model, "
                f"now {first['score']:.4f}): it is trained anew. Give trainings of different scores different names",
                stacklevel=3,
            )
            return 0
        for key in self.TEXT:
            setattr(self, key, known[key])
        self.best = read["best"]
        if not self.finished:
            _assign(self._variables(), read["now"])
        return self.rows[-1]["epoch"]

    def begin(self, row: dict, seconds: float) -> None:
        """Take in the untrained model: the first to be better than."""
        self.rows, self.best, self.seconds = [row], _values(self.model.weights), seconds

    def add(self, row: dict, start: float) -> None:
        """Take an epoch in that began at ``start``: is it the best, is the rate to be lowered, is it the last?"""
        self.check_finite(row[self.monitor], self.monitor, row["epoch"], row["learning_rate"])
        weights = _values(self.model.weights)
        for variable, value in zip(self.model.weights, weights, strict=True):
            self.check_finite(value, variable.path, row["epoch"], row["learning_rate"])
        sign = 1 if self.monitor == "score" else -1
        best = next((known[self.monitor] for known in self.rows if known["epoch"] == self.best_epoch), -sign * np.inf)
        self.rows.append(row)
        if sign * row[self.monitor] > sign * best:
            self.best_epoch, self.best, self.since_best, self.since_lowered = row["epoch"], weights, 0, 0
        else:
            self.since_best += 1
            self.since_lowered += 1
        if self.plateau and self.since_lowered >= self.plateau.patience:
            rate = float(self.model.optimizer.learning_rate)
            self.model.optimizer.learning_rate = min(rate, max(rate * self.plateau.factor, self.plateau.lowest))
            self.since_lowered = 0
        self.finished = row["epoch"] == self.epochs or (self.patience is not None and self.since_best >= self.patience)
        self.seconds += perf_counter() - start
        if self.finished or perf_counter() - self.kept_at >= KEEP_EVERY:
            self._keep()
            self.kept_at = perf_counter()

    def check_finite(self, values, what: str, epoch: int, rate: float) -> None:
        if not np.isfinite(values).all():
            shown = values if np.ndim(values) == 0 else "not finite"
            raise TrainingDiverged(
                f"{self.name}: {what} is {shown} in epoch {epoch}; take a lower learning rate "
                f"(now {rate:g}), clip the gradient, or look for pictures or labels that are none"
            )

    def line(self) -> str:
        """The last epoch for a person to read."""
        row = self.rows[-1]
        shown = [f"{key} {row[key]:.3f}" for key in row if key not in ("epoch", "seconds", "learning_rate")]
        best = " · best" if self.best_epoch == row["epoch"] else ""
        early = self.finished and row["epoch"] < self.epochs
        end = f" · stopped, best was {self.best_epoch}" if early else ""
        shown = [part for part in shown if not part.endswith(" nan")]
        if row["epoch"]:
            shown.append(f"{row['seconds']:.1f} s")
        return f"{self.name} {row['epoch']:3}/{self.epochs}  {'  '.join(shown)}{best}{end}"

    def _keep(self) -> None:
        """One file, whole or not at all: the weights and the text can't come from different epochs."""
        state = json.dumps({key: getattr(self, key) for key in self.TEXT})
        arrays = {"state": np.frombuffer(state.encode(), np.uint8)}
        arrays |= {f"best{number:05}": value for number, value in enumerate(self.best)}
        if not self.finished:
            arrays |= {f"now{number:05}": value for number, value in enumerate(_values(self._variables()))}
        try:
            write_atomically(self.path, lambda file: np.savez(file, **arrays))
        except OSError as error:
            raise TrainingStateError(
                f"{self.path} can't be written ({error}); what was kept before is still there. Free some space, or "
                "let LOOKALIKE_CACHE point to another disk, and train again: it goes on from there"
            ) from error

    def _variables(self) -> list:
        return [*self.model.weights, *self.model.optimizer.variables]


def _check(
    model, train, name, epochs, batch_size, seed, one_hot, augmentation, sampler, validation, plateau, patience
) -> None:
    """What would fail late, or go wrong without a word."""
    import keras

    if not name or Path(name).name != name:
        raise ValueError(f"name becomes part of a file's name, so it can't be empty or hold a slash; got {name!r}")
    if not getattr(model, "compiled", False):
        raise ValueError(f"{name}: compile the model first: model.compile(optimizer=…, loss=…)")
    if epochs < 1 or batch_size < 1 or seed < 0 or (patience is not None and patience < 1):
        raise ValueError(
            f"{name}: epochs, batch_size and patience must be at least 1, and seed at least 0; "
            f"got {epochs}, {batch_size}, {patience} and {seed}"
        )
    if augmentation is not None and augmentation.recipe.mixes and one_hot is None:
        raise ValueError(f"{name}: {augmentation.recipe.name} mixes labels: give one_hot=<number of classes>")
    for part, examples in (("train", train), ("validation", validation)):
        if examples is not None and one_hot is not None and examples.labels.max() >= one_hot:
            raise ValueError(f"{name}: {part} has the label {examples.labels.max()}, but one_hot={one_hot} classes")
    # A schedule's rate is computed anew at each step, so nobody can lower it.
    if plateau is not None and not isinstance(model.optimizer.learning_rate, keras.Variable):
        raise ValueError(f"{name}: the learning rate follows a schedule; take either the schedule or the plateau")
    if sampler is not None:
        rows = sampler.epoch(0)
        if rows.max() >= len(train):
            raise ValueError(f"{name}: the sampler draws row {rows.max()}, but there are {len(train)} examples")
        drawn = train.labels[rows].reshape(-1, sampler.k)
        if (drawn != drawn[:, :1]).any():
            raise ValueError(f"{name}: the sampler was made for other labels than these examples have")


def _fingerprint(model, train: Examples, settings: dict) -> str:
    """Everything that changes what comes out."""
    import keras

    layers = model._flatten_layers()
    operations = [op for layer in layers if isinstance(layer, keras.Model) for op in getattr(layer, "operations", [])]
    optimizers = [model.optimizer, getattr(model.optimizer, "inner_optimizer", model.optimizer)]
    # Keras counts names up ("dense_3"), so that they differ from run to run; the order of the layers doesn't.
    places: dict[str, str] = {}
    for part in [*layers, *operations, *optimizers]:
        places.setdefault(part.name, f"#{len(places)}")
    digest = hashlib.sha256()
    for layer in layers:
        config = _unnamed(layer.get_config(), places)
        digest.update(f"{type(layer).__qualname__} {_text(config)}".encode())
    optimizer = _unnamed(keras.saving.serialize_keras_object(model.optimizer), places)
    compiled = model.get_compile_config() | {"optimizer": optimizer}
    # A loss that has no get_config of its own still has its settings.
    losses = [loss for loss in keras.tree.flatten(model.loss) if hasattr(loss, "__dict__")]
    own = [{key: value for key, value in vars(loss).items() if isinstance(value, _PLAIN)} for loss in losses]
    everything = {"version": VERSION, "compile": compiled, "loss": own, "train": train.fingerprint, **settings}
    digest.update(_text(everything).encode())
    for variable, value in zip(model.weights, _values(model.weights), strict=True):
        digest.update(f"{value.dtype} {value.shape} {variable.trainable}".encode() + np.ascontiguousarray(value).data)
    for value in _values(model.optimizer.variables):
        # Zeros are many, and the same in each new optimiser.
        digest.update(np.ascontiguousarray(value).data if value.any() else b"zeros")
    return digest.hexdigest()[:16]


_PLAIN = (bool, int, float, str)


def _text(config) -> str:
    import keras

    def plain(value):
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        return keras.saving.serialize_keras_object(value)

    return json.dumps(config, sort_keys=True, default=plain)


def _unnamed(config, places: dict[str, str], named: bool = False):
    """A config with the place of a layer where its name stood."""
    if isinstance(config, dict):
        return {
            key: _unnamed(value, places, key in ("name", "keras_history", "input_layers", "output_layers"))
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return [_unnamed(value, places, named) for value in config]
    return places.get(config, config) if named and isinstance(config, str) else config


def _reseed(model, augmentation, seed: int, epoch: int) -> None:
    """Every random generator begins anew, from the seed and the number of the epoch."""
    import keras

    parts = [part for loss in keras.tree.flatten(model.loss) for part in getattr(loss, "__dict__", {}).values()]
    states = [part.state for part in parts if isinstance(part, keras.random.SeedGenerator)]
    states += [variable for variable in model.variables if variable.name == "seed_generator_state"]
    for number, state in enumerate(states):
        begin = np.random.SeedSequence((seed, epoch, number)).generate_state(1)[0] >> 1
        state.assign(np.array([begin, 0], dtype=np.uint32))
    if augmentation is not None:
        augmentation.start_epoch(epoch)


def _augmented(augmentation):
    """(inputs, labels) → the same, augmented; traced once for all epochs."""
    import tensorflow as tf

    if augmentation.recipe.mixes:

        def change(inputs, labels):
            mixed = augmentation({"images": inputs, "labels": labels}, training=True)
            return mixed["images"], mixed["labels"]
    else:

        def change(inputs, labels):
            return augmentation(inputs, training=True), labels

    return tf.function(change)


def _bar(text: str, steps: int):
    import keras

    # Shown only while an epoch takes longer than some seconds, and on a terminal or in a notebook that someone watches.
    bar = tqdm(total=steps, desc=text, unit="batch", leave=False, delay=5, disable=None)

    class Bar(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            bar.update()

        def on_train_end(self, logs=None):
            bar.close()

    return Bar()


def _values(variables: Sequence) -> list[np.ndarray]:
    """Copies: what a backend hands out may be the variable's own memory."""
    return [np.array(variable.numpy()) for variable in variables]


def _assign(variables: Sequence, values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
