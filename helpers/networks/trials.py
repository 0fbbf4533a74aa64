"""Trials of a search for hyper-parameters: one training each, which resumes after its last complete epoch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.networks import states

if TYPE_CHECKING:
    import keras

#: Inputs (n, …) and labels (n, …).
Data = tuple[np.ndarray, np.ndarray]
Score = Callable[["keras.Model", Data], float]


class InvalidScore(ValueError):
    """A score is not a finite number; the message names the trial and its hyper-parameters."""


@dataclass(frozen=True, eq=False)
class Trials:
    """The settings of all trials, see `helpers.networks.tuning.search`.

    parameters : the hyper-parameters of each trial.
    folder : absolute; has one file per trial.
    """

    build: Callable[..., "keras.Model"]
    score: Score
    train: Data
    validation: Data
    parameters: Sequence[Mapping[str, Any]]
    epochs: int
    batch_size: int
    seed: int
    folder: Path

    def describe(self, number: int) -> str:
        """The trial's number and hyper-parameters, for messages."""
        return f"trial {number} ({describe(self.parameters[number])})"


def describe(parameters: Mapping[str, Any]) -> str:
    """Hyper-parameters as text: ``learning_rate=0.00321, layers=2``."""
    values = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in parameters.items()}
    return ", ".join(f"{key}={value}" for key, value in values.items())


@dataclass(eq=False)
class Trial:
    """One trial: its complete epochs, and the model once an epoch must be trained.

    All random numbers depend on the seed and the numbers of the trial and the epoch only, so a resumed trial ends with
    the same scores as an uninterrupted one.

    scores, seconds : of each complete epoch.
    closed : no more epochs will be trained.
    """

    trials: Trials
    number: int
    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    closed: bool = False
    _model: "keras.Model | None" = None

    @classmethod
    def load(cls, trials: Trials, number: int) -> "Trial":
        """The trial with the epochs in its file; without a file, a new trial."""
        trial = cls(trials, number)
        return replace(trial, **states.read(trial.path)[0]) if trial.path.is_file() else trial

    @property
    def path(self) -> Path:
        return self.trials.folder / f"trial-{self.number:04}.npz"

    @property
    def model(self) -> "keras.Model":
        """The model after the last complete epoch."""
        self._model = self._model or self._restored()
        return self._model

    def train_epoch(self) -> None:
        """Train one more epoch, score the model and save the state.

        Raises
        ------
        InvalidScore : the score is not a finite number.
        """
        from helpers.networks.callbacks import seed_layers

        trials, epoch, start = self.trials, len(self.scores), perf_counter()
        model = self.model
        seed_layers(model, (trials.seed, self.number, epoch))
        inputs, labels = trials.train
        rows = np.random.default_rng((trials.seed, self.number, epoch)).permutation(len(inputs))
        model.fit(
            inputs[rows], labels[rows], batch_size=trials.batch_size, initial_epoch=epoch, epochs=epoch + 1,
            shuffle=False, verbose=0,
        )  # fmt: skip
        score = float(trials.score(model, trials.validation))
        if not np.isfinite(score):
            raise InvalidScore(
                f"{trials.describe(self.number)}: the score after epoch {epoch + 1} is {score}. A score must be "
                "finite; return the lowest score for a model whose training diverged"
            )
        self.scores.append(score)
        self.seconds.append(perf_counter() - start)
        self._write([variable.numpy() for variable in states.variables(model)])

    def close(self) -> None:
        """End the trial: delete its weights, which are several megabytes. Its scores stay in the file."""
        self._model, self.closed = None, True
        self._write([])

    def _restored(self) -> "keras.Model":
        import keras

        trials = self.trials
        # Memory of the models of earlier trials in this process.
        keras.utils.clear_session()
        keras.utils.set_random_seed(int(np.random.SeedSequence((trials.seed, self.number)).generate_state(1)[0]))
        model = build(trials, self.number)
        model.optimizer.build(model.trainable_variables)
        if self.scores:
            _, (values,) = states.read(self.path, "value")
            for variable, value in zip(states.variables(model), values, strict=True):
                variable.assign(value)
        return model

    def _write(self, values: list[np.ndarray]) -> None:
        states.write(self.path, {"scores": self.scores, "seconds": self.seconds, "closed": self.closed}, value=values)


def build(trials: Trials, number: int) -> "keras.Model":
    """The new model of a trial. Raises TypeError for anything but a compiled Keras model."""
    import keras

    model = trials.build(**trials.parameters[number])
    if not isinstance(model, keras.Model) or not model.compiled:
        found = "an uncompiled model" if isinstance(model, keras.Model) else type(model).__name__
        raise TypeError(
            f"build must return a compiled keras.Model, got {found}: call model.compile(optimizer=…, loss=…)"
        )
    return model
