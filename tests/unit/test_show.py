"""Figures, tables and the bookkeeping of lessons."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from helpers import paths
from helpers.evaluation import builders, metrics, protocol_files, runner
from helpers.evaluation.verification import error_curve
from helpers.features import faces
from helpers.features.color_shape import Pixels
from helpers.features.keypoints import Homography, Keypoints, Matches
from helpers.images import samples
from helpers.images.imageset import ImageSet
from helpers.lessons import lesson, match_figures, training_figures
from helpers.networks.training import Training
from helpers.search.index import open_index
from helpers.visualization import curves, grids, heatmaps, tables


@pytest.fixture(scope="module")
def case():
    """Twelve sample photographs of two classes with made-up vectors: the last bird lies among the fish."""
    images = samples.photos()
    rows = [*np.flatnonzero(images.labels == 0)[:6], *np.flatnonzero(images.labels == 2)[:6]]
    images = images.subset(rows)
    angle = np.array([0, 0.01, 0.03, 0.06, 0.1, 1.501, 1.5, 1.52, 1.53, 1.55, 1.58, 1.6])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    protocol = builders.leave_one_out(images, "twelve")
    return images, vectors, protocol, runner.run(protocol, vectors, open_index("exact:cosine"))


def titles(figure):
    return [cell.get_title() for cell in figure.axes]


def test_result_grid_marks_relevant_results(case):
    images, _, protocol, ranking = case
    shown = titles(grids.result_grid(images, protocol, ranking, [0, 5], k=3))
    assert shown[0].startswith("query") and "birds" in shown[0]
    assert all(title.startswith("○") for title in shown[1:4])
    assert shown[4].startswith("query")
    assert all(title.startswith("✗") and "fish" in title for title in shown[5:8])


def test_result_grid_leaves_padding_empty(case):
    images, _, protocol, ranking = case
    shown = titles(grids.result_grid(images, protocol, ranking, [0], k=13))
    assert len([title for title in shown if title]) == 1 + 11


def test_distance_histogram_reports_the_separation(case):
    _, vectors, protocol, _ = case
    figure = curves.distance_histogram({"made up": vectors}, protocol)
    share = float(figure.axes[0].get_title().split("farther in ")[1].split("%")[0])
    # By hand: 25 of 36 pairs of birds and fish are far apart, the last bird is near all fish and far from all birds.
    assert 70 < share < 95


def test_confusion_map_leaves_out_classes_without_a_query(case):
    images, _, protocol, ranking = case
    counts = metrics.confusion(ranking, protocol)
    assert counts[0, 0] == 5 and counts[0, 2] == 1
    labels = [
        label.get_text() for label in heatmaps.confusion_map(counts, images.class_names).axes[0].get_yticklabels()
    ]
    assert labels == ["birds", "fish"]


def test_gallery_map_shows_every_image_once(case):
    images, vectors, _, _ = case
    figure = heatmaps.gallery_map(images, vectors)
    assert len(figure.axes[0].artists) == len(images)


def test_comparison_has_intervals_chance_and_ceiling(case):
    _, _, protocol, ranking = case
    text = tables.comparison({"made up": metrics.evaluate(ranking, protocol)}, ["top-1", "mAP"]).data
    lines = text.splitlines()
    assert lines[0] == "|  | top-1 | mAP |"
    # The bird among the fish is wrong, and it is the nearest of the first fish.
    assert lines[2].startswith("| made up | 0.833 [")
    assert lines[3].startswith("| *chance* | *0.4") and lines[4].startswith("| *ceiling* | *1.000*")


DEFAULTS = {"PROFILE": "sample", "SEED": 0, "LIMIT": 500, "NAMES": ["a", "b"]}


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The parameters of the last saved run of the notebook x."""
    monkeypatch.setattr(paths, "committed_figures_dir", lambda: tmp_path / "committed")
    (tmp_path / "committed" / "results").mkdir(parents=True)
    (tmp_path / "committed" / "results" / "x.json").write_text(json.dumps({"parameters": DEFAULTS}))


@pytest.mark.parametrize(
    ("changed", "has_defaults"),
    [({}, True), ({"PROFILE": "full"}, True), ({"SEED": 1}, False), ({"LIMIT": 50}, False), ({"NAMES": ["a"]}, False)],
)
def test_expectations_apply_to_the_default_parameters_only(saved, monkeypatch, capsys, changed, has_defaults):
    monkeypatch.setenv("LOOKALIKE_CHECK", "1")
    run = lesson.Lesson("x", DEFAULTS | changed | {"np": np, "lower": 1})
    assert run.has_defaults == has_defaults
    if has_defaults:
        with pytest.raises(AssertionError, match=r"the text says 0\.8"):
            run.expect("top-1", 0.91, 0.8, 0.02)
    else:
        run.expect("top-1", 0.91, 0.8, 0.02)
        assert capsys.readouterr().out == "top-1: 0.910 (no expectation for this data or these parameters)\n"


@pytest.mark.parametrize(
    ("names", "missing"), [({"SEED": 0}, "PROFILE"), ({"PROFILE": "sample"}, "SEED"), ({}, "PROFILE and SEED")]
)
def test_a_missing_parameter_is_named_with_the_remedy(names, missing):
    with pytest.raises(ValueError, match=f"x: {missing} must be set .* run the cell with the parameters first"):
        lesson.Lesson("x", names)


@pytest.mark.parametrize("variable", ["CI", "LOOKALIKE_CHECK"])
def test_an_expectation_stops_the_run_in_ci_only(monkeypatch, capsys, variable):
    for name in ("CI", "LOOKALIKE_CHECK"):
        monkeypatch.delenv(name, raising=False)
    run = lesson.Lesson("x", DEFAULTS)
    run.expect("top-1", 0.91, 0.8, 0.02)
    assert "note: top-1 is 0.9100, but the text says 0.8 ± 0.02" in capsys.readouterr().out
    monkeypatch.setenv(variable, "true")
    with pytest.raises(AssertionError):
        run.expect("top-1", 0.91, 0.8, 0.02)


def test_an_expectation_that_does_not_hold_fails(monkeypatch, capsys):
    monkeypatch.setenv("LOOKALIKE_CHECK", "1")
    run = lesson.Lesson("x", DEFAULTS)
    run.expect("top-1", 0.91, 0.9, 0.02)
    assert "✓" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="the text says 0.8"):
        run.expect("top-1", 0.91, 0.8, 0.02)
    run.expect("top-1", 0.5, 0.9, 0.02, when=False)
    assert "no expectation" in capsys.readouterr().out


def test_a_task_says_how_many_images_of_the_data_set_it_leaves_out(monkeypatch, capsys):
    frozen = protocol_files.frozen("imagenette-val-train")
    keys = (*frozen.keys, "train/n01440764/more.JPEG", "val/n01440764/more.JPEG")
    whole = ImageSet("imagenette", tuple(map(Path, keys)), np.append(frozen.labels, [0, 0]), frozen.class_names)
    monkeypatch.setattr(lesson.imagenet, "imagenette", lambda: whole)
    protocol, images = lesson.Lesson("x", DEFAULTS | {"PROFILE": "full"}).task()
    assert images.keys == frozen.keys and protocol.name == frozen.name
    printed = capsys.readouterr().out
    assert printed == "imagenette-val-train uses 1,400 of the 1,402 images; the others are left out\n"
    lesson.Lesson("x", DEFAULTS).task()
    assert capsys.readouterr().out == "", "the sample has no other images"


@pytest.mark.parametrize(
    ("profile", "mirror", "tolerance"),
    [("full", "none", 0.03), ("full", "/copies", 0.01), ("sample", "none", 0.01)],
)
def test_official_archives_may_give_slightly_other_numbers(monkeypatch, capsys, profile, mirror, tolerance):
    """Other numbers than those of the copies that the text quotes."""
    monkeypatch.setenv("LOOKALIKE_MIRROR", mirror)
    monkeypatch.setenv("LOOKALIKE_CHECK", "1")
    run = lesson.Lesson("x", DEFAULTS | {"PROFILE": profile})
    run.expect("top-1", 0.9 + tolerance - 0.001, 0.9, 0.01)
    assert f"± {tolerance:g} ✓" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        run.expect("top-1", 0.9 + tolerance + 0.001, 0.9, 0.01)
    run.expect("loss", 0.9, 1.2, 0.4)


def test_finish_writes_what_was_run(case, tmp_path, monkeypatch):
    _, _, protocol, ranking = case
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(tmp_path))
    run = lesson.Lesson("x", DEFAULTS | {"SEED": 7})
    run.expect("top-1", 0.9, 0.9, 0.02)
    path = run.finish("all is well", {"name": "d"}, Pixels(), {"made up": metrics.evaluate(ranking, protocol)})
    content = json.loads(path.read_text())
    assert (content["seed"], content["headline"]) == (7, "all is well")
    assert content["metrics"]["made up/top-1"] == pytest.approx(10 / 12, abs=1e-5)
    assert content["weights"]["extractor"] == Pixels().fingerprint
    assert content["checks"][0]["expected"] == 0.9
    assert content["parameters"] == DEFAULTS | {"SEED": 7}


@pytest.mark.parametrize("profile, kept", [("sample", True), ("full", False)])
def test_figures_of_the_full_profile_are_never_written(case, tmp_path, monkeypatch, profile, kept):
    images, *_ = case
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(tmp_path))
    lesson.Lesson("x", DEFAULTS | {"PROFILE": profile}).show(grids.image_grid(images, range(3)), "grid")
    assert bool(list(tmp_path.glob("x_grid.*"))) == kept


@pytest.mark.parametrize(("photograph", "suffix"), [(False, ".png"), (True, ".jpg")])
def test_a_figure_is_shown_in_full_color_with_its_description(tmp_path, monkeypatch, photograph, suffix):
    monkeypatch.setenv("LOOKALIKE_FIGURES", str(tmp_path))
    shown = []
    monkeypatch.setattr(lesson, "display", shown.append)
    if photograph:
        figure = grids.image_grid(samples.photos(), range(0, 240, 15))
    else:
        figure = Figure(figsize=(4, 3))
        figure.subplots().plot([0, 1], color="#123456")
    lesson.Lesson("x", DEFAULTS).show(figure, "plot", "two points joined by a line")
    with Image.open(tmp_path / f"x_plot{suffix}") as image:
        width, height = figure.get_size_inches()
        assert image.size == (round(150 * width), int(150 * height)) and image.mode == "RGB"
    data, metadata = shown[0]._repr_mimebundle_()
    assert metadata == {kind: {"width": round(80 * width), "alt": "two points joined by a line"} for kind in data}


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="PROFILE"):
        lesson.Lesson("x", DEFAULTS | {"PROFILE": "small"})


def test_fallback_is_loud_and_can_be_forbidden(monkeypatch):
    from helpers.networks.weights import WeightsUnavailable

    shown = []

    def unavailable(name):
        if name == "resnet152":
            raise WeightsUnavailable("no source gives them")
        return name

    monkeypatch.setattr(lesson, "open_extractor", unavailable)
    monkeypatch.setattr(lesson, "display", shown.append)
    assert lesson.open_with_fallback("resnet152", "pixels") == "pixels"
    assert "no source gives them" in shown[0].data and "pixels" in shown[0].data
    with pytest.raises(WeightsUnavailable):
        lesson.open_with_fallback("resnet152", None)


def test_view_distances_show_quartiles_in_order():
    """By hand: 0 … 1 has its quartiles at 1/4 and 3/4; views come first, on top and in color, references in gray."""
    even = np.linspace(0, 1, 101)
    panel = curves.view_distances({"mild": even / 10, "strong": even}, {"neighbor": even / 2}).axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["mild", "strong", "neighbor"]
    assert panel.get_ylim()[0] > panel.get_ylim()[1], "the first is not on top"
    edges = [(box.get_path().vertices[:, 0].min(), box.get_path().vertices[:, 0].max()) for box in panel.patches]
    assert np.allclose(edges, [(0.025, 0.075), (0.25, 0.75), (0.125, 0.375)])
    farthest = max(line.get_xdata().max() for line in panel.lines if len(line.get_xdata()) and line.get_ydata()[0] == 2)
    assert farthest == pytest.approx(0.95)
    colors = [box.get_facecolor() for box in panel.patches]
    assert colors[0] == colors[1] != colors[2]


@pytest.mark.parametrize("bad", [[], [0.1, np.nan], [np.inf]])
def test_view_distances_name_what_is_wrong(bad):
    with pytest.raises(ValueError, match="'odd'"):
        curves.view_distances({"fine": np.ones(3)}, {"odd": np.array(bad)})


def test_error_curves_name_the_equal_error_and_draw_the_threshold():
    """By hand: of four same and four different scores one of each is on the wrong side."""
    curve = error_curve(np.array([0.9, 0.8, 0.7, 0.4]), np.array([0.6, 0.3, 0.2, 0.1]))
    left, right = curves.error_curves({"made up": curve}, 0.55).axes
    assert "both 25.0%" in right.get_legend().get_texts()[0].get_text()
    assert right.get_xscale() == "log" and min(right.lines[0].get_xdata()) > 0
    assert left.lines[-1].get_xdata()[0] == 0.55


def test_similarity_grid_shows_each_map_over_its_image():
    """Both maps share one scale; negative values are as dark as 0."""
    first, second = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 9, np.uint8)
    maps = np.array([[0.5, 0.0], [0.0, -0.5]]), np.array([[0.25, 0.0], [0.0, 0.0]])
    cells = heatmaps.similarity_grid([(first, second, *maps, "a pair")]).axes
    assert titles(cells[0].figure)[0] == "" and cells[0].get_title(loc="left") == "a pair"
    shown = [[image.get_array() for image in cell.images] for cell in cells]
    assert [len(images) for images in shown] == [1, 1, 2, 2]
    assert (shown[2][0] == first).all() and (shown[3][0] == second).all()
    assert shown[2][1].max() == 1 and shown[3][1].max() == 0.5 and shown[2][1].min() == 0


def test_face_grid_frames_every_face_and_the_chosen_one_bold():
    eyes = np.array([[2, 2], [3, 2], [5, 2], [6, 2], [4, 4]])
    one, other = faces.Face((1, 1, 7, 7), eyes, 1.0), faces.Face((9, 1, 15, 7), eyes + [8, 0], 0.5)
    image, chip = np.zeros((8, 16, 3), np.uint8), np.zeros((150, 150, 3), np.uint8)
    found = [(image, [one, other], other, chip, "two"), (image, [], None, None, "none")]
    figure = grids.face_grid(found)
    assert titles(figure) == ["two", "none", "", ""]
    assert [frame.get_linewidth() for frame in figure.axes[0].patches] == [1.5, 3]
    assert [len(cell.images) for cell in figure.axes] == [1, 1, 1, 0]


def training(best_epoch, **columns):
    """A training of three epochs, and of the untrained model where there are four values."""
    n = len(next(iter(columns.values())))
    table = pd.DataFrame({"epoch": np.arange(4 - n, 4), **columns})
    return Training("made up", table, best_epoch, "loss", 1.0, 3)


def test_training_curves_mark_the_best_epoch_and_leave_out_what_a_training_lacks():
    both = training(2, loss=[3.0, 2.0, 1.0], val_loss=[3.5, 2.5, 2.75], accuracy=[0.1, 0.2, 0.3])
    with_start = training(0, loss=[np.nan, 5.0, 4.0, 4.5], score=[0.9, 0.6, 0.7, 0.8])
    figure = training_figures.training_curves({"a": both, "b": with_start}, ["loss", "accuracy", "score"])
    loss, accuracy, score = figure.axes
    curves_of = {(line.get_label(), line.get_linestyle()): line for line in loss.lines if line.get_marker() == "None"}
    assert list(curves_of) == [("a", "-"), ("a", "--"), ("b", "-")]
    assert list(curves_of["a", "--"].get_ydata()) == [3.5, 2.5, 2.75]
    assert curves_of["a", "-"].get_linewidth() > curves_of["b", "-"].get_linewidth(), "seen under a later one"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "training", "validation"]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in loss.lines if line.get_marker() == "o"]
    # The untrained model, the best of "b", has no loss.
    assert points[:2] == [(2, 2.0), (2, 2.5)] and points[2][0] == 0 and np.isnan(points[2][1])
    assert len(accuracy.lines) == 2 and len(score.lines) == 2
    assert score.get_ylabel() == "validation retrieval score"
    (curve, best) = score.lines
    assert list(curve.get_xdata()) == [0, 1, 2, 3] and curve.get_label() == "b"
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (0, 0.9)


def test_a_quantity_without_values_leaves_an_empty_panel():
    figure = training_figures.training_curves({"a": training(1, loss=[1.0, 2.0, 3.0])}, ["score"])
    assert not figure.axes[0].lines and not figure.legends


def test_more_trainings_than_colors_are_all_drawn():
    many = {str(number): training(1, loss=[1.0, 2.0, 3.0]) for number in range(20)}
    figure = training_figures.training_curves(many, ["loss"])
    assert {line.get_label() for line in figure.axes[0].lines if line.get_marker() == "None"} == set(many)


def test_gains_show_the_interval_and_every_seed():
    differences = {"SupCon": (0.05, 0.03, 0.07), "contrastive": (-0.01, -0.04, 0.02)}
    figure = training_figures.gains(differences, {"SupCon": [0.04, 0.06], "contrastive": [-0.01]}, "mAP gained")
    (panel,) = figure.axes
    assert panel.get_xlabel() == "mAP gained"
    # From top to bottom in the given order.
    assert [label.get_text() for label in panel.get_yticklabels()] == ["contrastive", "SupCon"]
    drawn = [[list(values) for values in line.get_data()] for line in panel.lines]
    assert [[0.03, 0.07], [1, 1]] in drawn and [[-0.04, 0.02], [0, 0]] in drawn, "the intervals"
    assert [[0.05], [1]] in drawn and [[-0.01], [0]] in drawn, "the means"
    assert any(x == [0.04, 0.06] and y[0] == y[1] != 1 for x, y in drawn), "the seeds, below their method"


def test_filters_and_activations_one_cell_each():
    kernels = np.random.default_rng(0).normal(size=(3, 3, 3, 5))
    drawn = [cell for cell in training_figures.filters(kernels, columns=4).axes if cell.images]
    assert len(drawn) == 5
    first = drawn[0].images[0].get_array()
    assert first.shape == (3, 3, 3) and (first.min(), first.max()) == (0, 1)
    maps = np.dstack([np.full((4, 4), 7.0), np.arange(16.0).reshape(4, 4), np.zeros((4, 4))])
    drawn = [cell for cell in training_figures.activations(maps, most=2).axes if cell.images]
    assert len(drawn) == 2
    # A constant channel stays dark.
    assert (drawn[0].images[0].get_array() == 0).all()
    assert drawn[1].images[0].get_array()[3, 3] == 1


@pytest.mark.parametrize("shape", [(3, 3, 3), (3, 3, 1, 8), (3, 3, 4, 8)])
def test_filters_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(h, w, 3, n\), got shape"):
        training_figures.filters(np.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4, 8)])
def test_activations_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(h, w, channels\), got shape"):
        training_figures.activations(np.zeros(shape))


def test_score_bars_show_the_scores_of_the_table(case):
    _, _, protocol, ranking = case
    scores = {"one": metrics.evaluate(ranking, protocol), "again": metrics.evaluate(ranking, protocol)}
    panel = curves.score_bars(scores, "top-1").axes[0]
    expected = scores["one"].mean("top-1")
    assert [bar.get_width() for bar in panel.patches] == [expected, expected]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["one", "again"]


def found(points, sizes=8.0, angles=0.0, shape=(40, 60)):
    """Keypoints at these points, with empty descriptors."""
    n = len(points)
    sizes, angles = (np.full(n, one, np.float32) for one in (sizes, angles))
    blank = np.zeros((n, 128), np.float32)
    return Keypoints("sift", np.array(points, np.float32).reshape(-1, 2), sizes, angles, sizes, blank, shape)


def test_an_image_row_gives_all_images_one_height():
    shapes = {"wide": (40, 80, 3), "high": (60, 30, 3)}
    images = {title: np.full(shape, 9, np.uint8) for title, shape in shapes.items()}
    figure = match_figures.image_row(images)
    figure.draw_without_rendering()
    assert titles(figure) == ["wide", "high"]
    assert [panel.images[0].get_array().shape for panel in figure.axes] == list(shapes.values())
    wide, high = (panel.get_window_extent() for panel in figure.axes)
    assert wide.height == pytest.approx(high.height, rel=0.02)


def test_spread_keeps_no_keypoint_near_a_stronger_one():
    points = np.array([(0, 0), (3, 0), (10, 0), (6, 0), (13, 0)], float)
    # Row 3 is 4 from rows 1 and 2, row 1 is 3 from row 0.
    responses = np.array([1, 2, 9, 4, 3], float)
    assert match_figures.spread(points, responses, 4).tolist() == [2, 3, 0]
    assert match_figures.spread(points, responses, 0).tolist() == [2, 3, 4, 1, 0]
    assert match_figures.spread(points[:0], responses[:0], 4).tolist() == []


def test_ratio_curves_show_precision_and_correct_matches():
    ratios, errors = np.array([0.55, 0.61, 0.71, 0.96]), np.array([1.0, 9.0, 3.0, 2.0])
    precision, correct = match_figures.ratio_curves({"one": (ratios, errors)}).axes
    for panel, expected in ((precision, [0, 1, 2 / 3, 3 / 4]), (correct, [0, 1, 2, 3])):
        curve = dict(zip(*(array.round(3) for array in panel.lines[0].get_data()), strict=True))
        assert [curve[bound] for bound in (0.5, 0.6, 0.8, 1.0)] == pytest.approx(expected, abs=1e-3)


def drawn_matches(homography):
    """The panel for three matches of an image of 40 × 60 and one of 50 × 30, 12 pixels apart."""
    query, gallery = found([(1, 2), (3, 4), (5, 6)]), found([(7, 8), (9, 10)], shape=(50, 30))
    pairs = Matches(np.array([[0, 1], [2, 0], [1, 1]]), np.zeros(3, np.float32))
    images = np.full((40, 60, 3), (200, 40, 7), np.uint8), np.zeros((50, 30, 3), np.uint8)
    (panel,) = match_figures.match_lines(*images, query, gallery, pairs, homography).axes
    return panel


def test_match_lines_distinguish_inliers():
    panel = drawn_matches(Homography(np.diag([0.5, 0.5, 1]), np.array([True, False, True])))
    assert panel.get_title() == "3 matches, 2 inliers of one homography"
    assert panel.images[0].get_array().shape == (50, 60 + 12 + 30, 3)
    assert panel.images[0].get_array()[3, 5].tolist() == [200, 40, 7], "full color"
    outliers, inliers = panel.collections
    assert np.array_equal(outliers.get_segments(), [[(5, 6), (79, 8)]])
    assert np.array_equal(inliers.get_segments(), [[(1, 2), (81, 10)], [(3, 4), (81, 10)]])
    assert inliers.get_colors()[0].tolist() != outliers.get_colors()[0].tolist()
    (outline,) = panel.lines
    # The query at half its size, in the upper left of the other image.
    assert outline.get_xydata().tolist() == [[72, 0], [102, 0], [102, 20], [72, 20], [72, 0]]


def test_match_lines_without_a_homography_have_no_outline():
    panel = drawn_matches(Homography(None, np.zeros(3, bool)))
    assert [len(lines.get_segments()) for lines in panel.collections] == [3, 0]
    assert not panel.lines and panel.get_title().startswith("3 matches")


def test_of_many_match_lines_a_random_part_is_drawn(monkeypatch):
    monkeypatch.setattr(match_figures, "MOST_LINES", 2)
    panel = drawn_matches(Homography(None, np.array([True, False, True])))
    assert sum(len(lines.get_segments()) for lines in panel.collections) == 2
    assert panel.get_title() == "3 matches, 2 inliers of one homography; 2 matches are drawn"


def test_strength_curves_one_panel_a_kind_with_its_own_strengths():
    table = pd.DataFrame({
        "kind": ["scale", "scale", "blur"], "strength": [0.5, 0.25, 4], "queries": 9,
        "recall@1": [0.9, 0.5, 0.7], "low": [0.8, 0.4, 0.6], "high": [1.0, 0.6, 0.8],
    })  # fmt: skip
    units = {"scale": "times", "blur": "pixels"}
    figure = curves.strength_curves({"sift": table, "orb": table}, units, columns=2)
    scale, blur, legend, spare = figure.axes
    assert titles(figure) == ["scale", "blur", "", ""]
    assert (scale.get_xlabel(), blur.get_xlabel()) == ("times", "pixels")
    assert [label.get_text() for label in scale.get_xticklabels()] == ["0.5", "0.25"]
    assert [list(line.get_ydata()) for line in scale.lines] == [[0.9, 0.5], [0.9, 0.5]]
    assert scale.lines[0].get_linewidth() > scale.lines[1].get_linewidth(), "seen under a later one"
    band = scale.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.4, 1.0)
    assert [text.get_text() for text in legend.get_legend().get_texts()] == ["sift", "orb"]
    assert not spare.axison and not legend.axison


def test_tables_show_small_p_values_as_a_bound():
    rows = pd.DataFrame({"precision": [0.0005], "p": [0.0005], "p by class": [0.031], "gain": [0.0005]})
    assert tables.markdown(rows).data.splitlines()[-1] == "| 0.001 | < 0.01 | 0.031 | 0.001 |"
