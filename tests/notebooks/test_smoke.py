"""Runs slow notebooks with small parameters through papermill; nbval runs the quick ones with their defaults."""

import json

import pytest

from helpers.lessons import runner

#: Parameters that make a slow notebook quick. A notebook without an entry runs with its defaults.
SMOKE = {
    "03_augmentation": {"MAX_IMAGES": 20, "COPIES": 3},
    "04_baseline_cnn": {"EPOCHS": 1, "MAX_CLASSES": 8, "SEEDS": 2},
    "05_transfer_learning": {"EPOCHS": 1, "HEAD_EPOCHS": 2, "MAX_PEOPLE": 8},
    "06_features": {"DIMS": [32, 256], "MAX_QUERIES": 20},
    "07_sift_and_orb": {"ORIGINALS": 6, "EVERY": 8, "MAX_QUERIES": 60},
    "08_visual_words": {"SIZES": [50, 100], "MAX_QUERIES": 60},
    "09_knn_search": {"DIMS": [2, 16], "SIZE": 500, "COUNTS": [200, 500], "EXTRACTOR": "hsv-histogram"},
    "10_evaluation": {"MAX_QUERIES": 60, "TRAININGS": 1, "EXTRACTOR": "hog"},
    "11_metric_learning": {"EPOCHS": 2, "SEEDS": 1, "BLOCK_EPOCHS": 1, "MAX_CLASSES": 8},
    "12_re_ranking": {"MAX_QUERIES": 20, "ORIGINALS": 6, "EXTRACTOR": "hsv-histogram"},
    "13_indexes_at_scale": {
        "SIZES": [1000, 2000],
        "QUERIES": 30,
        "BY_HAND": 2000,
        "PUBLISHED": 1000,
        "EXTRACTOR": "hsv-histogram",
    },
    "14_words_and_images": {"EPOCHS": 2, "SEEDS": 1},
    "16_search_service": {"MAX_QUERIES": 60, "WORKERS": 1, "EXTRACTOR": "hsv-histogram"},
}


SLOW = [path for path, quick in runner.quick().items() if not quick]


@pytest.mark.parametrize("notebook", SLOW, ids=lambda path: path.stem)
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
