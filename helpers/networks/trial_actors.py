"""The process of Ray Tune that trains the trials of a search, one after the other."""

from typing import Any

from helpers import extras
from helpers.networks.trials import Trial, Trials

with extras.importing("ray"):
    from ray import tune


class TrialActor(tune.Trainable):
    """Reports one epoch in each step. Epochs in the trial's file are reported without training them again."""

    # `tune.with_parameters` adds an argument.
    def setup(self, config: dict, trials: Trials) -> None:  # type: ignore[override]
        self.trials = trials
        self.start_trial(config["number"])

    def start_trial(self, number: int) -> None:
        """Load the trial's file, if there is one."""
        self.trial, self.epoch = Trial.load(self.trials, number), 0

    def step(self) -> dict:
        self.epoch += 1
        if self.epoch > len(self.trial.scores):
            self.trial.train_epoch()
        # With several workers, the scheduler may decide otherwise when a search is repeated. Decisions are kept.
        last = len(self.trial.scores) if self.trial.closed else self.trials.epochs
        return {"score": self.trial.scores[self.epoch - 1], "done": self.epoch == last}

    def reset_config(self, new_config: dict) -> bool:
        """Continue with another trial; Tune calls this after the end of one, if actors are reused."""
        self.trial.close()
        self.start_trial(new_config["number"])
        return True


class Completed(tune.Callback):
    """Collects the numbers of the complete trials: all epochs are trained, or the scheduler stopped them."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: object) -> None:
        self.numbers.add(trial.config["number"])
