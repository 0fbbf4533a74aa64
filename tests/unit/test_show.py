"""What a person sees: pictures with the right signs, tables with their bounds, lessons that keep their word."""

import json

import numpy as np
import pytest

from helpers.evaluation import metrics, protocol
from helpers.features.colour_shape import Pixels
from helpers.pictures import samples
from helpers.search.index import open_index
from helpers.show import curves, exercises, grids, heatmaps, lesson, tables


@pytest.fixture(scope="module")
def case():
    """Twelve sample photographs of two classes with made-up vectors: the last bird lies among the fish."""
    images = samples.photos()
    rows = [*np.flatnonzero(images.labels == 0)[:6], *np.flatnonzero(images.labels == 2)[:6]]
    images = images.subset(rows)
    angle = np.array([0, 0.01, 0.03, 0.06, 0.1, 1.501, 1.5, 1.52, 1.53, 1.55, 1.58, 1.6])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    rules = protocol.leave_one_out(images, "twelve")
    return images, vectors, rules, protocol.run(rules, vectors, open_index("exact:cosine"))


def titles(figure):
    return [cell.get_title() for cell in figure.axes]


def test_result_grid_marks_right_and_wrong(case):
    images, _, rules, ranking = case
    shown = titles(grids.result_grid(images, rules, ranking, [0, 5], k=3))
    assert shown[0].startswith("query") and "birds" in shown[0]
    assert all(title.startswith("○") for title in shown[1:4])
    assert shown[4].startswith("query")
    assert all(title.startswith("✗") and "fish" in title for title in shown[5:8])


def test_result_grid_leaves_padding_empty(case):
    images, _, rules, ranking = case
    shown = titles(grids.result_grid(images, rules, ranking, [0], k=13))
    assert len([title for title in shown if title]) == 1 + 11


def test_distance_histogram_says_how_well_classes_part(case):
    _, vectors, rules, _ = case
    figure = curves.distance_histogram({"made up": vectors}, rules)
    share = float(figure.axes[0].get_title().split("farther in ")[1].split("%")[0])
    # By hand: 25 of 36 pairs of birds and fish are far apart, the last bird is near all fish and far from all birds.
    assert 70 < share < 95


def test_confusion_map_leaves_out_classes_that_nobody_asked_for(case):
    images, _, rules, ranking = case
    counts = metrics.confusion(ranking, rules)
    assert counts[0, 0] == 5 and counts[0, 2] == 1
    labels = [
        label.get_text() for label in heatmaps.confusion_map(counts, images.class_names).axes[0].get_yticklabels()
    ]
    assert labels == ["birds", "fish"]


def test_gallery_map_shows_every_picture_once(case):
    images, vectors, _, _ = case
    figure = heatmaps.gallery_map(images, vectors)
    assert len(figure.axes[0].artists) == len(images)


def test_comparison_has_intervals_chance_and_ceiling(case):
    _, _, rules, ranking = case
    text = tables.comparison({"made up": metrics.evaluate(ranking, rules)}, ["top-1", "mAP"]).data
    lines = text.splitlines()
    assert lines[0] == "|  | top-1 | mAP |"
    # The bird among the fish is wrong, and it is the nearest of the first fish.
    assert lines[2].startswith("| made up | 0.833 [")
    assert lines[3].startswith("| *chance* | *0.4") and lines[4].startswith("| *ceiling* | *1.000*")


def test_an_expectation_that_does_not_hold_fails(capsys):
    run = lesson.Lesson("x", "sample", 0)
    run.expect("top-1", 0.91, 0.9, 0.02)
    assert "✓" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="the text says 0.8"):
        run.expect("top-1", 0.91, 0.8, 0.02)
    run.expect("top-1", 0.5, 0.9, 0.02, when=False)
    assert "no expectation" in capsys.readouterr().out


def test_finish_writes_what_was_run(case, tmp_path, monkeypatch):
    _, _, rules, ranking = case
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(tmp_path))
    run = lesson.Lesson("x", "sample", 7)
    run.expect("top-1", 0.9, 0.9, 0.02)
    path = run.finish("all is well", {"name": "d"}, Pixels(), {"made up": metrics.evaluate(ranking, rules)})
    content = json.loads(path.read_text())
    assert (content["seed"], content["headline"]) == (7, "all is well")
    assert content["metrics"]["made up/top-1"] == pytest.approx(10 / 12, abs=1e-5)
    assert content["weights"]["describer"] == Pixels().fingerprint
    assert content["checks"][0]["expected"] == 0.9


@pytest.mark.parametrize("profile, kept", [("sample", True), ("full", False)])
def test_figures_of_the_full_profile_are_never_written(case, tmp_path, monkeypatch, profile, kept):
    images, *_ = case
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(tmp_path))
    lesson.Lesson("x", profile, 0).show(grids.picture_grid(images, range(3)), "grid")
    assert (tmp_path / "x_grid.png").exists() == kept


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="PROFILE"):
        lesson.Lesson("x", "small", 0)


def test_fallback_is_loud_and_can_be_forbidden(monkeypatch):
    from helpers.networks.weights import WeightsUnavailable

    shown = []

    def unavailable(name):
        if name == "resnet152":
            raise WeightsUnavailable("no source gives them")
        return name

    monkeypatch.setattr(lesson, "describer", unavailable)
    monkeypatch.setattr(lesson, "display", shown.append)
    assert lesson.open_describer("resnet152", "pixels") == "pixels"
    assert "no source gives them" in shown[0].data and "pixels" in shown[0].data
    with pytest.raises(WeightsUnavailable):
        lesson.open_describer("resnet152", None)


def test_exercises_say_right_wrong_and_not_yet(capsys):
    assert exercises.check("1", None, lambda x: True, "hint") is None
    assert exercises.check("1", 3, lambda x: x == 3, "hint") is True
    assert exercises.check("1", 4, lambda x: x == 3, "look again") is False
    assert "look again" in capsys.readouterr().out
    assert exercises.check("1", "text", lambda x: x < 3, "a number") is False
