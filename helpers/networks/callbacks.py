"""Keras callbacks of `training.fit`, in addition to Keras's `EarlyStopping` and `ReduceLROnPlateau`.

Keras's `BackupAndRestore` and `ModelCheckpoint` cannot restore a killed training: they write two files one after the
other, so weights and epoch may disagree after a kill; they save neither the counters of other callbacks nor the
history; and they write after every epoch, which takes longer than an epoch of a small network.
"""

import warnings
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import keras
import numpy as np
from tqdm.auto import tqdm

from helpers.networks import states

if TYPE_CHECKING:
    from helpers.networks.training import Task

#: Relative tolerance for the score of the same untrained model in two calls.
SCORE_TOLERANCE = 0.005


class TrainingDiverged(ArithmeticError):
    """The loss, the monitored value or a weight is NaN or infinite."""


class Epochs(keras.callbacks.Callback):
    """Seeds each epoch by its number, scores and checks the model after it, and adds a row to ``rows``.

    It must be the first callback, because the others read the score from ``logs``.
    """

    def __init__(self, task: "Task", rows: list[dict]):
        super().__init__()
        self.task, self.rows, self.epoch = task, rows, 0
        self.seconds: float | None = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch, self.rate = epoch, float(self.model.optimizer.learning_rate)
        seed_layers(self.model, (self.task.seed, epoch))
        self.start, self.seconds = perf_counter(), None

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.seconds = perf_counter() - self.start

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        assert logs is not None
        seconds = self.seconds or perf_counter() - self.start
        self._check(logs["loss"], "loss")
        logs |= self.scored()
        self._check(logs[self.task.monitor], self.task.monitor)
        for variable in self.model.weights:
            self._check(variable.numpy(), variable.path)
        self.rows.append({"epoch": epoch + 1} | logs | {"learning_rate": self.rate, "seconds": seconds})

    def scored(self) -> dict[str, float]:
        """The model's score as a column; empty without a score."""
        if self.task.score is None:
            return {}
        value = float(self.task.score(self.model))
        if not np.isfinite(value):
            raise ValueError(f"{self.task.name}: the score of a model must be a finite number, got {value}")
        return {"score": value}

    def _check(self, values: float | np.ndarray, what: str) -> None:
        if not np.isfinite(values).all():
            shown = values if np.ndim(values) == 0 else "not finite"
            raise TrainingDiverged(
                f"{self.task.name}: {what} is {shown} in epoch {self.epoch + 1}; use a lower learning rate "
                f"(now {self.rate:g}), clip the gradient, or look for invalid images or labels"
            )


def seed_layers(model: keras.Model, entropy: tuple[int, ...]) -> None:
    """Seed the random numbers of a compiled model's layers and losses, such as those of dropout."""
    losses = keras.tree.flatten(model.loss)
    parts = [part for loss in losses for part in getattr(loss, "__dict__", {}).values()]
    states = [part.state for part in parts if isinstance(part, keras.random.SeedGenerator)]
    states += [variable for variable in model.variables if variable.name == "seed_generator_state"]
    for number, state in enumerate(states):
        seed = np.random.SeedSequence((*entropy, number)).generate_state(1)[0] >> 1
        state.assign(np.array([seed, 0], dtype=np.uint32))


class Backup(keras.callbacks.Callback):
    """Saves a training every few seconds and at its end, and restores it.

    rows : the history, see `Epochs`.
    every : minimum seconds between two saves.
    others : callbacks before this one, whose ``COUNTERS`` are saved; the first is `EarlyStopping`.
    """

    COUNTERS = ("wait", "best", "best_epoch")

    def __init__(self, path: Path, name: str, rows: list[dict], every: float, others: list):
        super().__init__()
        self.path, self.name, self.rows, self.every, self.others = path, name, rows, every, others
        self.counters: list[dict] = []
        self.best: list[np.ndarray] | None = None
        self.finished, self.seconds = False, 0.0

    @property
    def best_epoch(self) -> int:
        """Counted from 1; 0 is the untrained model."""
        return self.others[0].best_epoch + 1

    def begin(self, row: dict, seconds: float) -> None:
        """Use the untrained model as the first best epoch."""
        self.rows.append(row)
        self.seconds, self.best = seconds, self.model.get_weights()
        self.counters = [{"wait": 0, "best": row["score"], "best_epoch": -1} for _ in self.others]
        self._restore_counters()

    def load(self, first: dict[str, float]) -> int:
        """Restore the model and optimizer from the file, if it exists; returns the number of epochs.

        first : the score of the untrained model, see `Epochs.scored`.
        """
        if not self.path.is_file():
            return 0
        state, (best, now) = states.read(self.path, "best", "now")
        if first and not np.isclose(first["score"], state["rows"][0]["score"], rtol=SCORE_TOLERANCE, atol=1e-6):
            warnings.warn(
                f"{self.name} was trained with another score ({state['rows'][0]['score']:.4f} for the untrained model, "
                f"now {first['score']:.4f}): it is trained again. Give trainings with different scores different names",
                stacklevel=4,
            )
            return 0
        self.rows += state["rows"]
        self.best, self.counters = best, state["counters"]
        self.finished, self.seconds = state["finished"], state["seconds"]
        self._restore_counters()
        for variable, value in zip(states.variables(self.model), now, strict=False):
            variable.assign(value)
        return self.rows[-1]["epoch"]

    def _restore_counters(self) -> None:
        for callback, counters in zip(self.others, self.counters, strict=False):
            vars(callback).update(counters)
        self.others[0].best_weights = self.best

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._restore_counters()  # the callbacks have just reset them
        self.saved_at = perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.start = perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.finished = self.model.stop_training or epoch + 1 == self.params["epochs"]
        self.seconds += perf_counter() - self.start
        if self.finished or perf_counter() - self.saved_at >= self.every:
            self._save()
            self.saved_at = perf_counter()

    def _save(self) -> None:
        counters = [{key: vars(callback).get(key) for key in self.COUNTERS} for callback in self.others]
        state = {"rows": self.rows, "counters": counters, "finished": self.finished, "seconds": self.seconds}
        # Weights and optimizer, besides the weights of the best epoch.
        now = [] if self.finished else [variable.numpy() for variable in states.variables(self.model)]
        states.write(self.path, state, best=self.others[0].best_weights, now=now)


class Report(keras.callbacks.Callback):
    """Prints about ten lines, and shows a progress bar for long epochs. It must come after `Backup`."""

    def __init__(self, backup: Backup):
        super().__init__()
        self.backup = backup

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # Only shown on a terminal and in a notebook.
        text = f"{self.backup.name} · epoch {epoch + 1}"
        self.bar = tqdm(total=self.params["steps"], desc=text, unit="batch", leave=False, delay=5, disable=None)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.bar.close()
        if self.backup.finished or epoch % -(-self.params["epochs"] // 10) == 0:
            print(self.line(self.params["epochs"]))

    def line(self, epochs: int) -> str:
        """The last row of the history as text."""
        row = self.backup.rows[-1]
        hidden = ("epoch", "seconds", "learning_rate")
        shown = [f"{key} {value:.3f}" for key, value in row.items() if key not in hidden and np.isfinite(value)]
        if row["epoch"]:
            shown.append(f"{row['seconds']:.1f} s")
        best = " · best" if self.backup.best_epoch == row["epoch"] else ""
        early = self.backup.finished and row["epoch"] < epochs
        end = f" · stopped, best was {self.backup.best_epoch}" if early else ""
        return f"{self.backup.name} {row['epoch']:3}/{epochs}  {'  '.join(shown)}{best}{end}"
