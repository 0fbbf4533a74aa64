"""The studies and figures of notebook 14."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from helpers.evaluation.text_queries import evaluate_texts, text_protocol
from helpers.images import samples
from helpers.lessons import text_figures, word_studies
from helpers.lessons.extractor_comparison import mean_scores
from helpers.search.index import open_index
from tests.unit.word_vectors import word_vectors


@pytest.fixture(scope="module")
def task():
    """Ten birds, ten fruits and the vehicles of the sample; the vehicles count as known."""
    photos = samples.photos()
    rows = [row for name in ("birds", "fruit", "vehicles") for row in members(photos, name)[:10]]
    return word_studies.TextTask(photos.subset(rows), frozenset(["vehicles"]))


def members(images, name):
    return np.flatnonzero(images.labels == images.class_names.index(name))


def random_scores(task, seed):
    random = np.random.default_rng(seed)
    texts, images = random.standard_normal((3, 4)), random.standard_normal((len(task.images), 4))
    protocol = text_protocol(task.images)
    found = evaluate_texts(protocol, texts.astype(np.float32), images.astype(np.float32), open_index("exact:cosine"))
    cosines = (texts @ images.T) / np.linalg.norm(images, axis=1)
    return protocol, found, cosines


def test_tables_have_the_scores_of_scikit_learn(task):
    protocol, found, cosines = random_scores(task, 0)
    relevant = task.images.labels == protocol.labels[protocol.queries][:, None]
    expected = [average_precision_score(*each) for each in zip(relevant, cosines, strict=True)]
    classes = word_studies.classes_table({"random": found}, protocol, task)
    np.testing.assert_allclose(classes["AP, random"], expected)
    assert classes["name"].tolist() == ["birds", "fruit", "vehicles"] and classes["known"].tolist() == [
        False,
        False,
        True,
    ]
    table = word_studies.methods_table({"random": found}, protocol, task).set_index("names")
    assert table["queries"].to_dict() == {"known": 1, "others": 2, "all": 3} and (table["images"] == 30).all()
    assert table.loc["others", "mAP"] == pytest.approx(np.mean(expected[:2]))
    top = np.take_along_axis(relevant, np.argsort(-cosines, axis=1)[:, :10], axis=1).mean(axis=1)
    assert table.loc["all", "precision@10"] == pytest.approx(top.mean())
    assert table.loc["all", "precision@10 ceiling"] == table.loc["all", "mAP ceiling"] == 1


def test_a_row_per_data_set_and_a_column_per_method(task):
    protocol, first, _ = random_scores(task, 0)
    _, second, _ = random_scores(task, 1)
    table = word_studies.methods_table({"one": first, "two": second}, protocol, task)
    wide = word_studies.by_method(table, "mAP")
    assert wide.columns.tolist() == ["images of", "names", "queries", "one", "two", "chance", "ceiling"]
    assert wide["names"].tolist() == ["known", "others", "all"]
    assert wide["two"].iloc[-1].startswith(f"{second.mean('mAP'):.3f} [")
    unknown = word_studies.methods_table({"one": first}, protocol, replace(task, known=frozenset()))
    assert unknown["names"].tolist() == ["others", "all"]
    assert word_studies.by_method(unknown, "mAP")["names"].tolist() == ["others"]


def test_methods_are_scored_once_per_training(task):
    """Images of a class have the vector of its name, so the search is perfect; without images of it, it is not."""
    names = task.images.class_names
    words = word_vectors(names, np.eye(len(names), dtype=np.float32), frequency_weight=None)
    right = np.eye(len(names), dtype=np.float32)[task.images.labels]
    found = word_studies.score_methods({"both": [right, -right], "one": [right]}, words, text_protocol(task.images))
    assert [run.mean("mAP") for run in found["both"]] == [1, pytest.approx(found["both"][1].mean("mAP"))]
    assert found["both"][1].mean("mAP") < 0.3 and found["one"][0].mean("mAP") == 1


def test_runs_are_averaged_by_query(task):
    runs = [random_scores(task, seed)[1] for seed in range(3)]
    mean = mean_scores(runs)
    np.testing.assert_allclose(mean.values["mAP"], np.mean([run.values["mAP"] for run in runs], axis=0))
    assert mean.mean_chance("mAP") == runs[0].mean_chance("mAP")
    other = word_studies.TextTask(task.images.subset(range(20)), task.known)
    with pytest.raises(ValueError, match="same queries"):
        mean_scores([runs[0], evaluate_other(other)])


def evaluate_other(task):
    vectors = np.eye(20, dtype=np.float32)
    return evaluate_texts(text_protocol(task.images), vectors[:2], vectors, open_index("exact:cosine"))


def test_objects_of_the_sample():
    task = word_studies.object_task()
    rows = {path.stem: row for row, path in enumerate(task.images.paths)}
    assert task.images.class_name(rows["sea_lion"]) == "sea lion" and "sea lion" in task.known
    assert task.images.class_name(rows["us_010dime"]) == "us dime"
    assert "penguin" in task.images.class_names and "penguin" not in task.known
    assert not set(word_studies.sample_task().known)


def test_the_weight_moves_the_first_result():
    """Two images of each of two classes; by hand: the text of the other class wins from a weight of 0.5."""
    labels = np.array([0, 0, 1, 1])
    similarity = np.where(labels[:, None] == labels, 0.5, 0.0)
    texts = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    table = word_studies.first_result_shares(similarity, texts, labels, [0, 0.4, 0.6])
    assert table["image"].tolist() == [1, 1, 0] and table["text"].tolist() == [0, 0, 1]
    assert table["chance"].tolist() == [0.5] * 3 and (table["text low"] == table["text"]).all()
    table = word_studies.first_result_shares(similarity, texts, labels, [0.6, -0.6], own=True)
    assert table["image"].tolist() == [1, 0] and table["image"].equals(table["text"])


def test_shares_of_known_names_and_of_others(task):
    """The vehicles are known; the text of a class has a score of 1 with its images."""
    labels = task.images.labels
    similarity = np.where(labels[:, None] == labels, 0.5, 0.0)
    texts = (np.arange(len(task.images.class_names))[:, None] == labels).astype(float)
    texts[task.images.class_names.index("vehicles")] = 0
    table = word_studies.shares_by_names(similarity, texts, task, [0.6]).set_index("names")
    assert table["texts"].to_dict() == {"known": 1, "others": 2}
    assert table["text"].to_dict() == {"known": 0, "others": 1} and table["image"].to_dict() == {
        "known": 1,
        "others": 0,
    }


def test_intervals_in_one_cell():
    shares = word_studies.first_result_shares(np.eye(4), np.eye(2)[:, [0, 0, 1, 1]], np.array([0, 0, 1, 1]), [1])
    shown = word_studies.with_intervals(shares, ["text"])
    assert shown["text"].tolist() == ["1.000 [1.000, 1.000]"]
    assert shown.columns.tolist() == ["weight", "image", "text", "image low", "image high", "chance"]


class Weights:
    """Each text is a class with the weight 1 for its own feature."""

    def weights(self, text):
        return np.eye(3, dtype=np.float32)[int(text)] + np.float32(0.01)

    def classes(self, text):
        return [f"class {text}"]


def test_a_re_weighted_query_finds_images_of_the_class():
    """Images 3 and 4 of class 1 have something of class 0. Without re-weighting, only image 4 finds that class."""
    features = np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0.1, 1, 0], [0.8, 0.6, 0]], np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.array([0, 0, 1, 1, 1])
    table = word_studies.reweighted_shares(features, labels, {0: "0"}, Weights())
    row = table.iloc[0]
    assert (row["text"], row["class of ImageNet"], row["plain"]) == ("0", "class 0", pytest.approx(1 / 3))
    # Image 2 has nothing of class 0 and finds image 3; image 3 finds image 1, and image 4 finds image 0.
    assert row["query"] == pytest.approx(2 / 3) and row["chance"] == pytest.approx(0.4) and row["different"] == 3


def test_association_test_by_hand_and_by_permutations():
    random = np.random.default_rng(3)
    units = random.standard_normal((14, 5))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    x, y, a, b = units[:3], units[3:6], units[6:10], units[10:]
    found = word_studies.association_test(x, y, a, b)
    own = [np.mean([w @ v for v in a]) - np.mean([w @ v for v in b]) for w in (*x, *y)]
    effect = (np.mean(own[:3]) - np.mean(own[3:])) / np.std(own, ddof=1)
    assert found.effect == pytest.approx(effect)
    orders = [sum(order[:3]) - sum(order[3:]) for order in permutations(own)]
    share = np.mean(np.array(orders) >= sum(own[:3]) - sum(own[3:]) - 1e-9)
    assert found.p_value == pytest.approx(share)
    opposite = word_studies.association_test(y, x, a, b)
    assert opposite.effect == pytest.approx(-effect)


def test_figures_show_texts_images_and_words(task):
    images = task.images
    figure = text_figures.text_results(
        images, {"a bird": np.arange(4), "$5": np.arange(12, 16)}, {"a bird": "birds", "$5": "birds"}
    )
    titles = [cell.get_title() for cell in figure.axes]
    assert titles.count("○ birds") == 4 and titles.count("✗ fruit") == 4
    assert [text.get_text() for cell in figure.axes for text in cell.texts] == ["a bird", "$5"]
    plane = text_figures.word_plane(images, np.random.default_rng(0).random((30, 2)), ["birds", "boat"], np.eye(2))
    assert [text.get_text() for text in plane.axes[0].texts] == ["birds", "boat"]
    assert [text.get_weight() for text in plane.axes[0].texts] == ["bold", "normal"]
    close = text_figures.word_plane(images, np.random.default_rng(0).random((30, 2)), ["a", "b"], np.full((2, 2), 0.5))
    first, second = (text.get_position() for text in close.axes[0].texts)
    assert first[0] == second[0] and abs(first[1] - second[1]) > 0.02
    bars = text_figures.direction_bars(["b", "a"], np.array([0.2, -0.3]), "she", "he").axes[0]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["a", "b"]
    shares = word_studies.first_result_shares(np.eye(4), np.eye(2)[:, [0, 0, 1, 1]], np.array([0, 0, 1, 1]), [0, 1])
    [panel] = text_figures.weight_curves(shares).axes
    assert [text.get_text() for text in panel.get_legend().get_texts()][-2:] == [
        "class of the image",
        "class of the text",
    ]
