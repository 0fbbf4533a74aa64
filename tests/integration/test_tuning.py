"""Search for hyper-parameters: drawn trials, resumed trials, and one search by Ray Tune.

The search takes 15 seconds of processor time, most of it for the start of Ray and the imports of Ray Tune and
TensorFlow in this process and in the worker. So there is one search for all tests, and other searches are `measured`.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from helpers import extras, paths
from helpers.evaluation import builders, metrics, runner
from helpers.files import write_text
from helpers.images.imageset import ImageSet
from helpers.lessons import tuning_study
from helpers.networks import tuning
from helpers.networks.states import TrainingStateError
from helpers.networks.trials import InvalidScore, Trial, Trials
from helpers.networks.tuning import SearchResult, TrialFailed, draw, expected_best, search
from helpers.search.index import open_index
from helpers.vectors import l2_normalize

EPOCHS, TRIALS, GRACE_PERIOD, REDUCTION_FACTOR, BATCH_SIZE = 5, 6, 1, 2, 8
INPUTS = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
DATA = INPUTS, (INPUTS[:, 0] > 0).astype(np.int64)
STEPS = len(INPUTS) // BATCH_SIZE


def task(log):
    """A builder, and a score that writes each epoch to ``log``. Ray sends both to the worker, with their code.

    The score is known before the training: units + epoch / 100. The numbers of units of the trials are different.
    """

    def build(units, rate):
        import keras

        layers = [keras.layers.Dense(units, name="hidden"), keras.layers.Dropout(0.5), keras.layers.Dense(2, "softmax")]
        model = keras.Sequential([keras.Input((4,)), *layers])
        model.compile(keras.optimizers.AdamW(rate), loss="sparse_categorical_crossentropy")
        return model

    def score(model, validation):
        units, epoch = model.get_layer("hidden").units, int(model.optimizer.iterations) // STEPS
        with Path(log).open("a") as file:
            file.write(f"{units} {epoch}\n")
        return units + epoch / 100

    return build, score


def space():
    from ray import tune

    return {"units": tune.randint(1, 100), "rate": tune.loguniform(1e-3, 1e-1)}


def logged(log):
    """(Units, epoch) → how many times it was trained."""
    return Counter(tuple(map(int, line.split())) for line in log.read_text().splitlines())


def trials(folder, log, **changed):
    build, score = task(log)
    settings = {"score": score, "train": DATA, "validation": DATA, "parameters": draw(space(), TRIALS)} | changed
    folder.mkdir(exist_ok=True)
    return Trials(build, folder=folder, epochs=EPOCHS, batch_size=BATCH_SIZE, seed=0, **settings)


def searched(folder, log, **changed):
    build, score = task(log)
    settings = {"score": score, "epochs": EPOCHS, "trials": TRIALS, "grace_period": GRACE_PERIOD, "progress": False}
    settings |= {"reduction_factor": REDUCTION_FACTOR, "batch_size": BATCH_SIZE, "build": build} | changed
    return search(settings.pop("build"), space(), DATA, DATA, folder=folder, **settings)


def successive_halving(units):
    """The epochs of each trial by the rule of ASHA, trial after trial, for scores that increase with the units."""
    rungs, epochs = {1: [], 2: [], 4: []}, []
    for number in units:
        for rung, scores in rungs.items():
            cutoff = np.percentile(scores, 100 * (1 - 1 / REDUCTION_FACTOR)) if scores else -np.inf
            scores.append(number)
            if number < cutoff:
                epochs.append(rung)
                break
        else:
            epochs.append(EPOCHS)
    return epochs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder, log and result of a search that was interrupted in its third trial and resumed."""
    place = tmp_path_factory.mktemp("tuning")
    folder, log = place / "search", place / "log"
    run = trials(folder, log)
    write_text(folder / tuning.SETTINGS, json.dumps(tuning._settings(run, (GRACE_PERIOD, REDUCTION_FACTOR))))
    units = [parameters["units"] for parameters in run.parameters]
    for number, epochs in enumerate(successive_halving(units)[:3]):
        trial = Trial.load(run, number)
        for _ in range(1 if number == 2 else epochs):
            trial.train_epoch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(paths.ROOT))
        return folder, log, searched(folder, log)


@pytest.fixture
def no_ray(monkeypatch):
    """Starting Ray fails."""

    def refuse(*_):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(tuning, "cluster", refuse)


def test_asha_stops_the_trials_below_the_best_half(finished):
    result = finished[2]
    units = [parameters["units"] for parameters in draw(space(), TRIALS)]
    epochs = successive_halving(units)
    assert 1 in epochs and EPOCHS in epochs and len(set(units)) == TRIALS, "both decisions occur"
    assert list(map(len, result.scores)) == epochs
    assert result.scores == [
        [number + e / 100 for e in range(1, n + 1)] for number, n in zip(units, epochs, strict=True)
    ]
    assert result.best["units"] == max(units) and result.best_score == max(units) + EPOCHS / 100
    assert result.table["state"].to_list() == ["finished" if n == EPOCHS else "stopped" for n in epochs]
    assert (result.table["seconds"] > 0).all()


def test_a_resumed_search_repeats_no_epoch(finished):
    _, log, result = finished
    assert set(logged(log).values()) == {1}
    assert len(logged(log)) == result.epochs


def test_a_repeated_search_is_loaded(finished, no_ray, capsys):
    folder, log, result = finished
    again = searched(folder, log, progress=True)
    assert again.scores == result.scores and again.seconds == result.seconds and len(logged(log)) == result.epochs
    assert capsys.readouterr().out == f"{result}\n"
    assert {path.name for path in folder.iterdir()} == {"search.json", "result.json", "search.lock"}, "no weights"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"epochs": 6}, "epochs"),
        ({"trials": 8}, "hyper-parameters"),
        ({"grace_period": None}, "grace period and reduction factor"),
        ({"seed": 1}, "hyper-parameters, seed, model"),
        ({"score": tuning.accuracy}, "score"),
    ],
)
def test_a_folder_of_another_search_is_refused(finished, no_ray, changed, named):
    folder, log, _ = finished
    with pytest.raises(ValueError, match=f"another value of: {named}. Give another folder for this one"):
        searched(folder, log, **changed)


def test_a_changed_model_is_noticed(finished, no_ray):
    folder, log, _ = finished

    def build(units, rate):
        model = task(log)[0](units, rate)
        model.compile("sgd", loss="sparse_categorical_crossentropy")
        return model

    with pytest.raises(ValueError, match="another value of: model"):
        searched(folder, log, build=build)


def test_a_folder_with_other_files_is_refused(tmp_path, no_ray):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match=r"has other files, such as photo\.jpg: give another folder"):
        searched(tmp_path, tmp_path / "log")


def test_trials_depend_on_the_seed_and_their_number():
    few, many = draw(space(), 3, seed=1), draw(space(), 40, seed=1)
    assert many[:3] == few and draw(space(), 3, seed=2) != few
    assert len({each["units"] for each in many}) > 20
    assert all(type(each["units"]) is int and type(each["rate"]) is float for each in many)
    assert all(1 <= each["units"] < 100 and 1e-3 <= each["rate"] <= 1e-1 for each in many)
    below = np.mean([each["rate"] < 1e-2 for each in draw(space(), 400)])
    assert 0.4 < below < 0.6, "half of a logarithmic range of two decades"


def test_constants_and_choices():
    from ray import tune

    drawn = draw({"layers": tune.choice([1, 2, 3]), "loss": "mse"}, 20)
    assert {each["layers"] for each in drawn} == {1, 2, 3} and {each["loss"] for each in drawn} == {"mse"}


def test_unsupported_spaces():
    from ray import tune

    with pytest.raises(ValueError, match="rate must be a constant or a domain such as tune.uniform"):
        draw({"rate": tune.grid_search([1, 2])}, 2)
    with pytest.raises(ValueError, match="tune.sample_from are not supported"):
        draw({"rate": tune.sample_from(lambda _: 1)}, 2)
    with pytest.raises(ValueError, match="'epochs' is a column of the result"):
        draw({"epochs": 2}, 2)


@pytest.mark.parametrize("network", tuning_study.NETWORKS)
def test_every_value_of_the_space_builds(network):
    space = tuning_study.space(network)
    for layers in space["layers"].categories:
        model = tuning_study.build(
            network,
            learning_rate=1e-3,
            weight_decay=0.0,
            layers=layers,
            units=space["units"].categories[0],
            dropout=0.1,
        )
        assert model.output_shape == (None, 10)


def test_a_resumed_trial_ends_with_the_same_weights(tmp_path):
    """Initial weights, dropout, order and the optimizer's state are those of the uninterrupted trial."""
    weights = []
    for folder, stops in ((tmp_path / "whole", [4]), (tmp_path / "resumed", [1, 2, 1])):
        run = trials(folder, tmp_path / "log")
        for epochs in stops:
            trial = Trial.load(run, 1)
            for _ in range(epochs):
                trial.train_epoch()
        weights.append(trial.model.get_weights())
    assert all(np.array_equal(*pair) for pair in zip(*weights, strict=True))
    other = Trial.load(run, 0)
    other.train_epoch()
    assert not np.array_equal(other.model.get_weights()[-1], weights[0][-1])


def test_the_best_model_is_trained_again(finished, tmp_path, no_ray):
    result = finished[2]
    build, _ = task(tmp_path / "log")
    model = tuning.best_model(build, result, DATA, batch_size=BATCH_SIZE, seed=0)
    assert model.get_layer("hidden").units == result.best["units"]
    epochs = 1 + int(np.argmax(result.scores[result.best_trial]))
    assert int(model.optimizer.iterations) == epochs * STEPS
    searched = Trial.load(trials(tmp_path / "again", tmp_path / "log"), result.best_trial)
    for _ in range(epochs):
        searched.train_epoch()
    assert all(map(np.array_equal, model.get_weights(), searched.model.get_weights()))


def retrieval_map(model, validation):
    """mAP of the validation examples by the cosines of their embeddings; each is searched among the others."""
    inputs, labels = validation
    vectors = keras.Model(model.inputs[0], model.get_layer("hidden").output).predict(inputs, verbose=0)
    images = ImageSet("examples", tuple(Path(str(row)) for row in range(len(labels))), labels, ("no", "yes"))
    protocol = builders.leave_one_out(images, "validation")
    return metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol).mean("mAP")


def test_a_retrieval_score(tmp_path):
    run = trials(tmp_path / "search", tmp_path / "log", score=retrieval_map)
    trial = Trial.load(run, 1)
    trial.train_epoch()
    vectors = l2_normalize(keras.Model(trial.model.inputs[0], trial.model.get_layer("hidden").output)(INPUTS).numpy())
    cosines, same = vectors @ vectors.T, DATA[1][:, None] == DATA[1]
    others = ~np.eye(len(INPUTS), dtype=bool)
    expected = [average_precision_score(same[row, some], cosines[row, some]) for row, some in enumerate(others)]
    assert trial.scores == [pytest.approx(np.mean(expected), abs=1e-6)]


def test_a_score_that_is_not_finite(tmp_path):
    run = trials(tmp_path / "search", tmp_path / "log", score=lambda model, validation: np.nan)
    units, rate = run.parameters[2].values()
    expected = rf"trial 2 \(units={units}, rate={rate:.3g}\): the score after epoch 1 is nan\. A score must be finite"
    with pytest.raises(InvalidScore, match=expected):
        Trial.load(run, 2).train_epoch()
    assert not Trial.load(run, 2).scores


def test_a_damaged_file_is_named(tmp_path):
    run = trials(tmp_path / "search", tmp_path / "log")
    trial = Trial.load(run, 0)
    trial.path.write_bytes(b"PK\3\4 damaged")
    with pytest.raises(TrainingStateError, match=r"trial-0000\.npz is damaged .* Move it to another folder"):
        Trial.load(run, 0)


def test_errors_of_the_builder_name_the_trial(tmp_path, no_ray):
    def build(units, rate):
        raise KeyError(units)

    units, rate = draw(space(), 1)[0].values()
    with pytest.raises(TrialFailed, match=rf"trial 0 \(units={units}, rate={rate:.3g}\): KeyError: {units}") as caught:
        searched(tmp_path, tmp_path / "log", build=build)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(TrialFailed, match="must return a compiled keras.Model, got str"):
        searched(tmp_path, tmp_path / "log", build=lambda units, rate: "model")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"epochs": 0}, "must be at least 1"),
        ({"workers": 0}, "must be at least 1"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"grace_period": 6}, "grace_period must be between 1 and epochs=5"),
        ({"reduction_factor": 1}, "reduction_factor at least 2"),
    ],
)
def test_bad_arguments(tmp_path, no_ray, changed, text):
    with pytest.raises(ValueError, match=text):
        searched(tmp_path / "search", tmp_path / "log", **changed)
    assert not (tmp_path / "search").exists()


def test_labels_for_each_input(tmp_path, no_ray):
    with pytest.raises(ValueError, match="validation has 24 inputs and 3 labels"):
        search(task("")[0], space(), DATA, (INPUTS, DATA[1][:3]), folder=tmp_path, epochs=1, trials=1)


def test_table_and_curves():
    result = SearchResult([{"rate": 0.1}, {"rate": 0.01}], 3, [[0.2, 0.4, 0.3], [0.1]], [6.0, 2.0])
    assert result.table.to_dict("list") == {
        "trial": [0, 1], "rate": [0.1, 0.01], "state": ["finished", "stopped"], "epochs": [3, 1], "score": [0.4, 0.1],
        "best_epoch": [2, 1], "seconds": [6.0, 2.0],
    }  # fmt: skip
    assert result.curves.index.to_list() == [1, 2, 3]
    assert np.array_equal(result.curves, [[0.2, 0.1], [0.4, np.nan], [0.3, np.nan]], equal_nan=True)
    assert str(result) == "2 trials, 4 of 6 epochs; best score 0.400 in trial 0 (rate=0.1)"


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7), st.data())
def test_expected_best_of_random_trials(scores, data):
    count = data.draw(st.integers(1, len(scores)))
    expected = np.mean([max(chosen) for chosen in itertools.combinations(scores, count)])
    assert expected_best(scores, count) == pytest.approx(expected)


def test_expected_best_needs_enough_trials():
    with pytest.raises(ValueError, match="between 1 and 2"):
        expected_best([0.1, 0.2], 3)


def test_accuracy():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Activation("softmax")])
    assert tuning.accuracy(model, (np.eye(3, dtype=np.float32), np.array([0, 1, 0]))) == pytest.approx(2 / 3)


def test_ray_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(extras.MissingExtra, match=r"search for hyper-parameters needs ray, .*lookalike\[ray\]"):
        draw({"rate": 1}, 1)


@pytest.mark.measured
def test_errors_in_the_worker_name_the_trial(tmp_path):
    """Takes 15 seconds, because it starts Ray twice. A repeated search continues with the trial that failed."""
    folder, log, broken = tmp_path / "search", tmp_path / "log", tmp_path / "broken"
    broken.touch()
    second = draw(space(), TRIALS)[2]["units"]

    working, _ = task(log)

    def build(units, rate):
        if units == second and broken.exists():
            raise KeyError("no such layer")
        return working(units, rate)

    with pytest.raises(TrialFailed, match=rf"trial 2 \(units={second}, .*KeyError: 'no such layer'"):
        searched(folder, log, build=build)
    first = logged(log)
    broken.unlink()
    result = searched(folder, log, build=build)
    assert first and set(logged(log).values()) == {1} and len(logged(log)) == result.epochs


#: The driver of a search; arguments: folder and log.
DRIVER = """
import sys
from pathlib import Path
from test_tuning import searched
searched(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.measured
def test_a_killed_search_resumes(finished, tmp_path):
    """Takes 30 seconds, because it starts Ray twice, in new processes. No finished trial is repeated."""
    folder, log = tmp_path / "search", tmp_path / "log"
    path = os.pathsep.join([str(paths.ROOT), str(Path(__file__).parent)])
    command, environment = [sys.executable, "-c", DRIVER, folder, log], paths.child_environment() | {"PYTHONPATH": path}
    with subprocess.Popen(command, cwd=paths.ROOT, env=environment) as driver:
        until = time.monotonic() + 300
        while not log.exists() or len(logged(log)) < finished[2].epochs // 2:
            assert driver.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
    # The worker may complete the epoch that it has begun, and ends then.
    before = logged(log)
    subprocess.run(command, cwd=paths.ROOT, env=environment, check=True)
    after = logged(log)
    assert len(before) < finished[2].epochs and set(after) == set(logged(finished[1]))
    assert sum(after.values()) <= finished[2].epochs + 1, "at most the epoch that was interrupted is repeated"
    assert searched(folder, log).scores == finished[2].scores
