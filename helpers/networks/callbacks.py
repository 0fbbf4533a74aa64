"""The Keras callbacks of `training.fit` that Keras itself does not have.

Keras's `EarlyStopping` finds the best epoch and ends a training, and its `ReduceLROnPlateau` lowers the rate. Its
`BackupAndRestore` and `ModelCheckpoint` can't restore a training that was killed: they overwrite two files one after
the other, so weights and epoch may disagree after a kill; they save neither the counters of the other two callbacks
nor the table; and they write after every epoch, which takes longer than an epoch of a small network.
"""

import json
import warnings
import zipfile
from pathlib import Path
from time import perf_counter

import keras
import numpy as np
from tqdm.auto import tqdm

from helpers.files import write_atomically

#: By so much, relatively, the score of one untrained model may differ between two calls.
SCORE_TOLERANCE = 0.005


class TrainingDiverged(ArithmeticError):
    """The loss, the monitored value or a weight is NaN or infinite."""


class TrainingStateError(OSError):
    """The state of a training can't be written or read; the message names the file and the remedy."""


class Epochs(keras.callbacks.Callback):
    """Seeds each epoch by its number; afterwards scores and checks the model and adds a row to the table.

    It must be the first callback, because the others read the score in ``logs``.

    name, seed, score, augmentation : as for `training.fit`.
    monitor : the column that decides which epoch is the best.
    rows : the table, one dictionary an epoch.
    """

    def __init__(self, name: str, monitor: str, seed: int, score, augmentation, rows: list[dict]):
        super().__init__()
        self.name, self.monitor, self.seed, self.score = name, monitor, seed, score
        self.augmentation, self.rows, self.epoch = augmentation, rows, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.rate = epoch, float(self.model.optimizer.learning_rate)
        losses = keras.tree.flatten(self.model.loss)
        parts = [part for loss in losses for part in getattr(loss, "__dict__", {}).values()]
        states = [part.state for part in parts if isinstance(part, keras.random.SeedGenerator)]
        states += [variable for variable in self.model.variables if variable.name == "seed_generator_state"]
        for number, state in enumerate(states):
            first = np.random.SeedSequence((self.seed, epoch, number)).generate_state(1)[0] >> 1
            state.assign(np.array([first, 0], dtype=np.uint32))
        if self.augmentation is not None:
            self.augmentation.start_epoch(epoch)
        self.start, self.seconds = perf_counter(), None

    def on_test_begin(self, logs=None):
        self.seconds = perf_counter() - self.start

    def on_epoch_end(self, epoch, logs=None):
        seconds = self.seconds or perf_counter() - self.start
        self._check(logs["loss"], "loss")
        logs |= self.scored()
        self._check(logs[self.monitor], self.monitor)
        for variable in self.model.weights:
            self._check(variable.numpy(), variable.path)
        self.rows.append({"epoch": epoch + 1} | logs | {"learning_rate": self.rate, "seconds": seconds})

    def scored(self) -> dict[str, float]:
        """The model's score as a column; empty if nothing scores it."""
        if self.score is None:
            return {}
        value = float(self.score(self.model))
        if not np.isfinite(value):
            raise ValueError(f"{self.name}: the score of a model must be a finite number, got {value}")
        return {"score": value}

    def _check(self, values, what: str) -> None:
        if not np.isfinite(values).all():
            shown = values if np.ndim(values) == 0 else "not finite"
            raise TrainingDiverged(
                f"{self.name}: {what} is {shown} in epoch {self.epoch + 1}; take a lower learning rate "
                f"(now {self.rate:g}), clip the gradient, or look for invalid images or labels"
            )


class Backup(keras.callbacks.Callback):
    """Saves a training every few seconds and at its end, and restores it.

    It must come after the callbacks whose counters it saves.

    rows : the table, see `Epochs`.
    every : seconds between two savings; at most so much work is lost, and the epoch that was interrupted.
    watched : `EarlyStopping`, which also has the best weights, and other callbacks; ``COUNTERS`` are saved of each.
    """

    COUNTERS = ("wait", "best", "best_epoch")
    #: Weights of the best epoch; weights and optimizer as they are now.
    PARTS = ("best", "now")

    def __init__(self, path: Path, name: str, rows: list[dict], every: float, watched: list):
        super().__init__()
        self.path, self.name, self.rows, self.every, self.watched = path, name, rows, every, watched
        self.counters: list[dict] = []
        self.best: list[np.ndarray] | None = None
        self.finished, self.seconds = False, 0.0

    @property
    def best_epoch(self) -> int:
        """Counted from 1; 0 is the untrained model."""
        return self.watched[0].best_epoch + 1

    def begin(self, row: dict, seconds: float) -> None:
        """Take the untrained model as the first to improve on."""
        self.rows.append(row)
        self.seconds, self.best = seconds, self.model.get_weights()
        self.counters = [{"wait": 0, "best": row["score"], "best_epoch": -1} for _ in self.watched]
        self._restore_counters()

    def load(self, first: dict[str, float]) -> int:
        """Continue what was saved: model and optimizer become what they were. The number of epochs that are done.

        first : the score of the untrained model, see `Epochs.scored`.
        """
        if not self.path.is_file():
            return 0
        try:
            with np.load(self.path, allow_pickle=False) as saved:
                state = json.loads(saved["state"].tobytes())
                best, now = ([saved[key] for key in sorted(saved.files) if key.startswith(part)] for part in self.PARTS)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingStateError(
                f"{self.path} is damaged ({error}). Delete it, or call training.forget({self.name!r}): "
                "the training then begins anew"
            ) from error
        if first and not np.isclose(first["score"], state["rows"][0]["score"], rtol=SCORE_TOLERANCE, atol=1e-6):
            warnings.warn(
                f"{self.name} was trained with another score ({state['rows'][0]['score']:.4f} for the untrained model, "
                f"now {first['score']:.4f}): it is trained anew. Give trainings of different scores different names",
                stacklevel=4,
            )
            return 0
        self.rows += state["rows"]
        self.best, self.counters = best, state["counters"]
        self.finished, self.seconds = state["finished"], state["seconds"]
        self._restore_counters()
        for variable, value in zip(self._variables(), now, strict=False):
            variable.assign(value)
        return self.rows[-1]["epoch"]

    def _restore_counters(self) -> None:
        for callback, counters in zip(self.watched, self.counters, strict=False):
            vars(callback).update(counters)
        self.watched[0].best_weights = self.best

    def on_train_begin(self, logs=None):
        self._restore_counters()  # the callbacks have just reset them
        self.saved_at = perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.start = perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.finished = self.model.stop_training or epoch + 1 == self.params["epochs"]
        self.seconds += perf_counter() - self.start
        if self.finished or perf_counter() - self.saved_at >= self.every:
            self._save()
            self.saved_at = perf_counter()

    def _save(self) -> None:
        counters = [{key: vars(one).get(key) for key in self.COUNTERS} for one in self.watched]
        state = {"rows": self.rows, "counters": counters, "finished": self.finished, "seconds": self.seconds}
        # One file, as a whole or not at all: weights and state are always of the same epoch.
        content = {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
        now = [] if self.finished else [variable.numpy() for variable in self._variables()]
        for kind, values in zip(self.PARTS, (self.watched[0].best_weights, now), strict=True):
            content |= {f"{kind}{number:05}": value for number, value in enumerate(values)}
        try:
            write_atomically(self.path, lambda file: np.savez(file, **content))
        except OSError as error:
            raise TrainingStateError(
                f"{self.path} can't be written ({error}); what was saved before is still there. Free some space, or "
                "let LOOKALIKE_CACHE point to another disk, and train again: it continues from there"
            ) from error

    def _variables(self) -> list:
        return [*self.model.weights, *self.model.optimizer.variables]


class Report(keras.callbacks.Callback):
    """Prints about ten lines, and shows a bar for an epoch that takes long; comes after `Backup`."""

    def __init__(self, backup: Backup):
        super().__init__()
        self.backup = backup

    def on_epoch_begin(self, epoch, logs=None):
        # Shown only on a terminal or in a notebook that someone watches.
        text = f"{self.backup.name} · epoch {epoch + 1}"
        self.bar = tqdm(total=self.params["steps"], desc=text, unit="batch", leave=False, delay=5, disable=None)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()
        if self.backup.finished or epoch % -(-self.params["epochs"] // 10) == 0:
            print(self.line(self.params["epochs"]))

    def line(self, epochs: int) -> str:
        """The last row of the table, to be read by a person."""
        row = self.backup.rows[-1]
        hidden = ("epoch", "seconds", "learning_rate")
        shown = [f"{key} {value:.3f}" for key, value in row.items() if key not in hidden and np.isfinite(value)]
        if row["epoch"]:
            shown.append(f"{row['seconds']:.1f} s")
        best = " · best" if self.backup.best_epoch == row["epoch"] else ""
        early = self.backup.finished and row["epoch"] < epochs
        end = f" · stopped, best was {self.backup.best_epoch}" if early else ""
        return f"{self.backup.name} {row['epoch']:3}/{epochs}  {'  '.join(shown)}{best}{end}"
