"""Runs all notebooks with small parameters through papermill; nbval runs them with their defaults (``--slow``)."""

import hashlib
import json
import os
import shutil
import subprocess

import pytest

from helpers import paths
from helpers.lessons import runner

#: Parameters that make a notebook quick. A notebook without an entry runs with its defaults.
SMOKE = {
    "01_faces": {"EXTRACTOR": "hog", "SECOND": "rgb-histogram"},
    "02_objects": {"PER_CLASS": 6, "EXTRACTOR": "hog"},
    "03_augmentation": {"MAX_IMAGES": 20, "COPIES": 3},
    "04_baseline_cnn": {"EPOCHS": 1, "MAX_CLASSES": 8, "SEEDS": 1},
    "05_transfer_learning": {
        "NETWORK": "efficientnet-lite0",
        "COMPARED": [],
        "EPOCHS": 1,
        "HEAD_EPOCHS": 2,
        "SEEDS": 1,
    },
    "06_features": {"NETWORKS": ["resnet50"], "DIMS": [32, 256], "MAX_QUERIES": 20},
    "07_sift_and_orb": {
        "EXTRACTOR": "hsv-histogram",
        "SECOND": "hog",
        "ORIGINALS": 6,
        "EVERY": 8,
        "MAX_QUERIES": 60,
    },
    "08_visual_words": {"SIZES": [50], "MAX_QUERIES": 60},
    "09_knn_search": {"DIMS": [2, 16], "SIZE": 500, "COUNTS": [200, 500], "EXTRACTOR": "hsv-histogram"},
    "10_evaluation": {"MAX_QUERIES": 60, "TRAININGS": 1, "EPOCHS": 1, "EXTRACTOR": "hog"},
    "11_metric_learning": {"EPOCHS": 1, "SEEDS": 1, "HEAD_EPOCHS": 1},
    "12_re_ranking": {"MAX_QUERIES": 20, "ORIGINALS": 6, "EXTRACTOR": "hsv-histogram"},
    "13_indexes_at_scale": {
        "SIZES": [500, 1000],
        "QUERIES": 30,
        "BY_HAND": 1000,
        "PUBLISHED": 500,
        "EXTRACTOR": "hsv-histogram",
    },
    "14_words_and_images": {"EPOCHS": 2, "SEEDS": 1},
    "15_objects_in_images": {"SCENES": 30, "FEW": 3},
    "16_search_service": {"MAX_QUERIES": 60, "WORKERS": 1, "EXTRACTOR": "hsv-histogram"},
    "17_cifar10_study": {
        "EXTRACTORS": ["hsv-histogram"],
        "FOLDS": 2,
        "EPOCHS": 1,
        "SEEDS": 1,
        "TUNING_TRIALS": 3,
        "TUNING_EPOCHS": 2,
    },
    "18_index_servers": {"COUNT": 2500, "LARGER": 3000, "EXTRACTOR": "hsv-histogram"},
}


# In order, because some read what earlier ones cached: 13 takes half a minute less if 06 is complete.
@pytest.mark.parametrize("notebook", runner.select(None), ids=lambda path: path.stem)
def test_it_runs(notebook, tmp_path, profile):
    outcome = runner.run(notebook, profile, tmp_path / "figures", SMOKE.get(notebook.stem), tmp_path / notebook.name)
    assert outcome.ok, (tmp_path / notebook.with_suffix(".log").name).read_text()[-3000:]
    result = json.loads((tmp_path / "figures" / "results" / f"{notebook.stem}.json").read_text())
    assert result["headline"] == outcome.headline
    assert result["metrics"], "the notebook measured nothing"


def test_a_failing_cell_fails_the_run(tmp_path):
    notebook = runner.select("00")[0]
    outcome = runner.run(
        notebook, "sample", tmp_path / "figures", {"EXTRACTOR": "no-such-network"}, tmp_path / "x.ipynb"
    )
    assert not outcome.ok
    assert "no-such-network" in outcome.headline


def files_of(root):
    """The SHA-256 sum of each file outside of the ignored folders."""
    ignored = {"build", "cache", "__pycache__", ".ipynb_checkpoints"}
    found = [path for path in root.rglob("*") if path.is_file() and not ignored & {*path.relative_to(root).parts}]
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_a_run_by_hand_changes_no_file_of_the_checkout(tmp_path):
    """In a copy of the checkout, without the runner's options, as JupyterLab runs it.

    Notebook 09 takes 20 seconds on a quiet core.
    """
    checkout = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "cache", ".ipynb_checkpoints")
    for name in ("helpers", "notebooks", "figures", "data"):
        shutil.copytree(paths.ROOT / name, checkout / name, ignore=ignore)
    shutil.copy(paths.ROOT / "pyproject.toml", checkout)
    before = files_of(checkout)
    options = [option for name, value in SMOKE["09_knn_search"].items() for option in ("-y", json.dumps({name: value}))]
    environment = {name: value for name, value in os.environ.items() if name not in ("LOOKALIKE_FIGURES", "CI")}
    notebook = checkout / "notebooks" / "09_knn_search.ipynb"
    subprocess.run(
        [*runner._papermill(notebook, tmp_path / "executed.ipynb", "sample"), *options],
        env=environment | {"PYTHONPATH": str(checkout)}, check=True, timeout=600,
    )  # fmt: skip
    assert files_of(checkout) == before
    assert (checkout / "build/figures/leaderboard.csv").is_file()
    assert json.loads((checkout / "build/figures/results/09_knn_search.json").read_text())["parameters"]["SIZE"] == 500
