"""Search for hyper-parameters with Ray Tune, for any Keras model and any score.

`search` draws the hyper-parameters of all trials from the seed before it trains. So a search that stops bad trials
early (ASHA, the asynchronous successive halving algorithm) and a search that trains every trial fully have the same
trials, and can be compared.

A search resumes after it was interrupted or killed, and repeats no epoch that was complete. Ray's ``Tuner.restore``
would not be enough: it forgets the scores that ASHA compares with, and its state is up to 10 seconds old. Here each
trial has a file of its own (`helpers.networks.trials`); the resumed search reports the epochs in it to the scheduler
again, without training them.

Source: L. Li et al., A system for massively parallel hyperparameter tuning, 2020 (ASHA).
"""

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from helpers import extras, logs
from helpers.files import bytes_hash, write_text
from helpers.networks import fingerprints
from helpers.networks.ray_cluster import cluster
from helpers.networks.trials import Data, InvalidScore, Score, Trial, Trials, build, describe

if TYPE_CHECKING:
    import keras
    import pandas as pd

#: Part of each search's settings. Raise it when `search` changes its results.
VERSION = 1

#: Files in the folder of a search.
SETTINGS, RESULT, LOCK = "search.json", "result.json", "search.lock"

#: Columns of `SearchResult.table`, in addition to the hyper-parameters.
COLUMNS = ("trial", "state", "epochs", "score", "best_epoch", "seconds")


class TrialFailed(RuntimeError):
    """A trial raised an error, which is the cause of this one; the message names its hyper-parameters."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The trials of a search.

    parameters : the hyper-parameters of each trial.
    max_epochs : epochs of a trial that was not stopped.
    scores : of each trial, the score after each epoch.
    seconds : of each trial, for training and scoring.
    """

    parameters: Sequence[Mapping[str, Any]]
    max_epochs: int
    scores: Sequence[Sequence[float]]
    seconds: Sequence[float]

    @property
    def epochs(self) -> int:
        """Epochs of all trials together."""
        return sum(map(len, self.scores))

    @property
    def best_trial(self) -> int:
        """The trial with the highest score after any of its epochs; the first of equal ones."""
        return int(np.argmax([max(curve) for curve in self.scores]))

    @property
    def best_score(self) -> float:
        return max(self.scores[self.best_trial])

    @property
    def best(self) -> dict[str, Any]:
        """The hyper-parameters of the best trial."""
        return dict(self.parameters[self.best_trial])

    @property
    def table(self) -> "pd.DataFrame":
        """One row per trial: its number, hyper-parameters, ``state`` ("finished" or "stopped"), ``epochs``, the best
        ``score``, its ``best_epoch`` (from 1), and ``seconds``.
        """
        import pandas as pd

        rows = [
            {"trial": number, **parameters, "state": "finished" if len(curve) == self.max_epochs else "stopped",
             "epochs": len(curve), "score": max(curve), "best_epoch": 1 + int(np.argmax(curve)), "seconds": seconds}
            for number, (parameters, curve, seconds) in
            enumerate(zip(self.parameters, self.scores, self.seconds, strict=True))
        ]  # fmt: skip
        return pd.DataFrame(rows)

    @property
    def curves(self) -> "pd.DataFrame":
        """The scores: one row per epoch (from 1), one column per trial; NaN after a trial was stopped."""
        import pandas as pd

        curves = pd.DataFrame({number: pd.Series(curve) for number, curve in enumerate(self.scores)})
        curves.index = pd.RangeIndex(1, len(curves) + 1, name="epoch")
        return curves.rename_axis(columns="trial")

    def __str__(self) -> str:
        whole = len(self.scores) * self.max_epochs
        return (
            f"{len(self.scores)} trials, {self.epochs} of {whole} epochs; best score {self.best_score:.3f} "
            f"in trial {self.best_trial} ({describe(self.best)})"
        )


def accuracy(model: "keras.Model", validation: Data) -> float:
    """The share of images whose most likely class is their label; the score of `search` by default."""
    inputs, labels = validation
    return float(np.mean(model.predict(inputs, batch_size=256, verbose=0).argmax(axis=1) == labels))


def draw(space: Mapping[str, Any], trials: int, seed: int = 0) -> list[dict[str, Any]]:
    """Draw the hyper-parameters of trials. Each trial depends on the seed and its number only.

    space : name → a domain of Ray Tune, such as ``tune.loguniform(1e-4, 1e-1)``, or a constant.
    """
    with extras.importing("ray"):
        from ray.tune.search.sample import Domain

    if trials < 1 or seed < 0:
        raise ValueError(f"trials must be at least 1 and seed at least 0, got {trials} and {seed}")
    for name, domain in space.items():
        if name in COLUMNS:
            raise ValueError(f"{name!r} is a column of the result, so it can't be the name of a hyper-parameter")
        if isinstance(domain, dict) or (isinstance(domain, Domain) and domain.is_function()):
            raise ValueError(
                f"{name} must be a constant or a domain such as tune.uniform, tune.loguniform, tune.randint or "
                f"tune.choice; tune.grid_search and tune.sample_from are not supported, got {domain}"
            )
    drawn = []
    for number in range(trials):
        random = np.random.default_rng((seed, number))
        values = {
            name: domain.sample(random_state=random) if isinstance(domain, Domain) else domain
            for name, domain in space.items()
        }
        drawn.append({key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()})
    return drawn


def search(
    build: "Callable[..., keras.Model]", space: Mapping[str, Any], train: Data, validation: Data, *,
    folder: str | Path, epochs: int, trials: int, score: Score = accuracy, grace_period: int | None = None,
    reduction_factor: int = 3, batch_size: int = 32, seed: int = 0, workers: int = 1, progress: bool = True,
) -> SearchResult:  # fmt: skip
    """Train models with hyper-parameters drawn from a space, each in a trial, and score them after each epoch.

    With one worker, the scores depend on the arguments only. With several, the decisions of ASHA also depend on the
    order in which epochs end.

    Parameters
    ----------
    build : hyper-parameters as keyword arguments → compiled model.
    space : see `draw`. train : inputs (n, …) and labels. validation : what ``score`` gets.
    folder : for the state of the search, which is a small file at its end. A repeated call loads it.
    epochs : of a trial that is not stopped.
    score : model, validation → finite number, higher is better.
    grace_period : epochs after which ASHA stops a trial for the first time, unless its score is among the best
        1 / ``reduction_factor`` of all trials so far; again after ``reduction_factor`` times as many epochs, and so on.
        By default, no trial is stopped: random search.
    seed : of hyper-parameters, initial weights, dropout and order.
    workers : processes with one CPU each, each for one trial at a time.
    progress : print a line at the end, and one for a resumed search.

    Raises
    ------
    ValueError : an argument is invalid, or the folder has another search.
    InvalidScore : a score is not finite.
    TrialFailed : ``build``, the training or ``score`` raised an error. A repeated call resumes.
    """
    _check(train, validation, epochs, grace_period, reduction_factor, batch_size, workers)
    place = Path(folder).absolute()
    run = Trials(build, score, train, validation, draw(space, trials, seed), epochs, batch_size, seed, place)
    halving = None if grace_period is None else (grace_period, reduction_factor)
    settings = _settings(run, halving)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / LOCK):
        _check_folder(place, settings)
        if not (place / RESULT).is_file():
            write_text(place / SETTINGS, json.dumps(settings))
            started = [trial for trial in _load(run) if trial.scores]
            if progress and started:
                print(
                    f"resumed: {sum(len(trial.scores) for trial in started)} epochs of {len(started)} trials are done"
                )
            _run(run, halving, workers)
            _finish(run)
        saved = json.loads((place / RESULT).read_text(encoding="utf-8"))
    result = SearchResult(run.parameters, epochs, saved["scores"], saved["seconds"])
    if progress:
        print(result)
    return result


def best_model(
    build: "Callable[..., keras.Model]", result: SearchResult, train: Data, *, batch_size: int = 32, seed: int = 0
) -> "keras.Model":
    """Train the best trial again, up to its best epoch; returns the model.

    A search keeps scores, not weights. With the arguments of the search, the random numbers are the same, too. The
    score can differ a little from ``result.best_score``, because rounding errors depend on the number of threads, and
    grow in a training.
    """
    number = result.best_trial
    with tempfile.TemporaryDirectory() as folder:
        again = Trials(
            build, lambda model, data: 0.0, train, train, result.parameters, result.max_epochs, batch_size, seed,
            Path(folder),
        )  # fmt: skip
        trial = Trial(again, number)
        for _ in range(1 + int(np.argmax(result.scores[number]))):
            trial.train_epoch()
        return trial.model


def expected_best(scores: Sequence[float], count: int) -> float:
    """The expected highest score of ``count`` trials that are drawn without replacement from all trials."""
    if not 1 <= count <= len(scores):
        raise ValueError(f"count must be between 1 and {len(scores)}, the number of scores; got {count}")
    # The trial at position i (from 0, ascending) is the best of those drawn if the others are below it.
    ways = [comb(position, count - 1) for position in range(len(scores))]
    return float(np.dot(np.sort(scores), ways) / comb(len(scores), count))


def _check(
    train: Data, validation: Data, epochs: int, grace_period: int | None, reduction_factor: int, batch_size: int,
    workers: int,
) -> None:  # fmt: skip
    if min(epochs, batch_size, workers) < 1:
        raise ValueError(f"epochs, batch_size and workers must be at least 1, got {epochs}, {batch_size} and {workers}")
    if reduction_factor < 2 or not 1 <= (1 if grace_period is None else grace_period) <= epochs:
        raise ValueError(
            f"grace_period must be between 1 and epochs={epochs}, and reduction_factor at least 2; "
            f"got {grace_period} and {reduction_factor}"
        )
    for name, (inputs, labels) in (("train", train), ("validation", validation)):
        if not len(inputs) or len(inputs) != len(labels):
            raise ValueError(
                f"{name} has {len(inputs)} inputs and {len(labels)} labels; it needs the same number of both, and "
                "at least 1"
            )


def _settings(run: Trials, halving: tuple[int, int] | None) -> dict:
    """Everything that determines the result, as plain JSON."""
    try:
        first = build(run, 0)
    except Exception as error:
        raise TrialFailed(f"{run.describe(0)}: {type(error).__name__}: {error}") from error
    settings = {
        "hyper-parameters": run.parameters, "epochs": run.epochs, "batch size": run.batch_size, "seed": run.seed,
        "grace period and reduction factor": halving, "training data": _hash(run.train),
        "validation data": _hash(run.validation), "model": fingerprints.of_settings(first),
        "score": getattr(run.score, "__qualname__", type(run.score).__qualname__), "version": VERSION,
    }  # fmt: skip
    return json.loads(json.dumps(settings))


def _hash(data: Data) -> str:
    arrays = [np.ascontiguousarray(part) for part in data]
    return bytes_hash(
        b"".join(f"{part.dtype} {part.shape}".encode() + bytes_hash(part.tobytes()) for part in arrays)
    ).hex()


def _check_folder(place: Path, settings: dict) -> None:
    """Raise ValueError if the folder has another search, or other files."""
    file = place / SETTINGS
    if not file.is_file():
        if others := [path.name for path in place.iterdir() if path.name != LOCK]:
            raise ValueError(f"{place} has other files, such as {others[0]}: give another folder for this search")
        return
    known = json.loads(file.read_text(encoding="utf-8"))
    changed = [key for key in settings if settings[key] != known.get(key)]
    if changed:
        raise ValueError(
            f"{place} has a search with another value of: {', '.join(changed)}. Give another folder for this one"
        )


def _load(run: Trials) -> list[Trial]:
    return [Trial.load(run, number) for number in range(len(run.parameters))]


def _finish(run: Trials) -> None:
    """Write the result, and delete the files of the trials."""
    found = _load(run)
    result = {"scores": [trial.scores for trial in found], "seconds": [sum(trial.seconds) for trial in found]}
    write_text(run.folder / RESULT, json.dumps(result))
    for trial in found:
        trial.path.unlink()


def _run(run: Trials, halving: tuple[int, int] | None, workers: int) -> None:
    """Train all trials by Ray Tune."""
    with extras.importing("ray"):
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

    from helpers.networks.trial_actors import Completed, TrialActor

    scheduler = None
    if halving is not None:
        scheduler = ASHAScheduler(max_t=run.epochs, grace_period=halving[0], reduction_factor=halving[1])
    completed = Completed()
    # Even with verbose=0, Tune prints its settings and each error.
    with (
        tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as scratch,
        cluster(workers),
        logs.silent("ray.tune"),
        redirect_stdout(io.StringIO()),
    ):
        results = tune.Tuner(
            tune.with_parameters(TrialActor, trials=run),
            param_space={"number": tune.grid_search(list(range(len(run.parameters))))},
            tune_config=tune.TuneConfig(
                metric="score", mode="max", scheduler=scheduler, reuse_actors=True, max_concurrent_trials=workers
            ),
            run_config=tune.RunConfig(
                storage_path=scratch, verbose=0, callbacks=[completed],
                failure_config=tune.FailureConfig(fail_fast=True),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()  # fmt: skip
    # In the order of the trials. A trial that failed in its first epoch has no configuration.
    for number in range(len(results)):
        error = results[number].error
        if error is not None:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, InvalidScore):
                raise cause
            raise TrialFailed(f"{run.describe(number)}: {type(cause).__name__}: {cause}") from cause
    # Tune ends quietly after an interrupt from the keyboard.
    if len(completed.numbers) < len(run.parameters):
        raise KeyboardInterrupt("the search was interrupted; a repeated call resumes it")
