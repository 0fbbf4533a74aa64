"""Tuned classifiers, out-of-fold predictions, McNemar's test, and vectors fused with a predicted class."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from helpers.evaluation.builders import query_gallery
from helpers.evaluation.intervals import holm, wilson_interval
from helpers.evaluation.metrics import evaluate
from helpers.evaluation.runner import run
from helpers.images.imageset import ImageSet
from helpers.lessons.class_fusion import with_prediction
from helpers.lessons.classifiers import CLASSIFIERS, compare_with_published, mcnemar, out_of_fold
from helpers.lessons.classifiers import compare_classifiers as compare
from helpers.search.index import open_index

pytestmark = pytest.mark.usefixtures("fresh_cache")


@pytest.fixture(autouse=True)
def small_forest(monkeypatch):
    forest = CLASSIFIERS["random forest"]._replace(fixed={"n_estimators": 10})
    monkeypatch.setitem(CLASSIFIERS, "random forest", forest)


QUICK = ["naive Bayes", "k nearest"]


def clouds(each=24, spread=1.5, classes=3, dim=6, seed=0):
    """Overlapping classes, with features of very different scales; two of three rows are for training."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), each))
    vectors = rng.normal(0, 1, (classes, dim))[labels] + rng.normal(0, spread, (len(labels), dim))
    test = np.flatnonzero(np.arange(len(labels)) % 3 == 0)
    return vectors * 10.0 ** np.arange(-2, dim - 2), labels, np.setdiff1d(np.arange(len(labels)), test), test


# ---- the comparison -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        (
            "naive Bayes",
            GridSearchCV(GaussianNB(), {"var_smoothing": CLASSIFIERS["naive Bayes"].grid["var_smoothing"]}),
        ),
        (
            "logistic regression",
            GridSearchCV(
                make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, tol=1e-3)),
                {"logisticregression__C": CLASSIFIERS["logistic regression"].grid["C"]},
            ),
        ),
        (
            "k nearest",
            GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3, 5, 10, 20, 40, 80]}),
        ),
        (
            "linear SVM",
            GridSearchCV(
                make_pipeline(StandardScaler(), LinearSVC(dual=False, tol=1e-2)),
                {"linearsvc__C": CLASSIFIERS["linear SVM"].grid["C"]},
            ),
        ),
    ],
)
def test_scikit_learn_by_hand_agrees(name, by_hand):
    vectors, labels, train, test = clouds(each=200 // 3)
    by_hand.cv = StratifiedKFold(4, shuffle=True, random_state=5)
    by_hand.fit(vectors[train], labels[train])
    table, fitted = compare({"v": vectors}, labels, train, test, [name], folds=4, seed=5)
    row, predicted = table.iloc[0], fitted["v", name]
    assert list(predicted.settings.values()) == list(by_hand.best_params_.values())
    assert row["settings"] == f"{next(iter(predicted.settings))} = {next(iter(predicted.settings.values())):g}"
    assert row["cv accuracy"] == pytest.approx(by_hand.best_score_)
    assert predicted.test.tolist() == by_hand.predict(vectors[test]).tolist()
    assert predicted.train.tolist() == by_hand.predict(vectors[train]).tolist()
    for part, rows, mine in (("train", train, predicted.train), ("test", test, predicted.test)):
        assert row[f"{part} accuracy"] == pytest.approx((mine == labels[rows]).mean())
        macro = precision_score(labels[rows], mine, average="macro", zero_division=0)
        assert row[f"{part} precision"] == pytest.approx(macro)
    assert (row["low"], row["high"]) == pytest.approx(tuple(wilson_interval(row["test accuracy"], len(test))))


def test_all_classifiers_learn_and_the_table_is_complete():
    vectors, labels, train, test = clouds(spread=0.2)
    noise = np.random.default_rng(1).normal(0, 1, vectors.shape)
    table, fitted = compare({"good": vectors, "noise": noise}, labels, train, test, folds=2)
    assert table["fusion"].tolist() == ["good"] * 5 + ["noise"] * 5
    assert table["classifier"].tolist() == list(CLASSIFIERS) * 2 and len(fitted) == 10
    assert (table["test accuracy"][:5] > 0.7).all() and (table["test accuracy"][5:] < 0.7).all()
    assert ((table["low"] < table["test accuracy"]) & (table["test accuracy"] <= table["high"])).all()
    # A forest fits its training images perfectly, even noise.
    assert fitted["noise", "random forest"].train.shape == train.shape
    assert (fitted["noise", "random forest"].train == labels[train]).mean() > 0.9


def test_test_images_do_not_change_the_settings():
    vectors, labels, train, test = clouds()
    changed, other = vectors.copy(), labels.copy()
    changed[test], other[test] = np.random.default_rng(2).normal(0, 1e3, changed[test].shape), (labels[test] + 1) % 3
    names = [*QUICK, "logistic regression"]
    table, fitted = compare({"v": vectors}, labels, train, test, names, folds=3)
    moved, refitted = compare({"v": changed}, other, train, test, names, folds=3)
    same = ["settings", "cv accuracy", "train accuracy", "train precision"]
    assert table[same].equals(moved[same])
    assert not table["test accuracy"].equals(moved["test accuracy"])
    for key, predicted in fitted.items():
        assert predicted.train.tolist() == refitted[key].train.tolist() and predicted.settings == refitted[key].settings


def test_the_same_seed_gives_the_same_table():
    vectors, labels, train, test = clouds()
    names = ["k nearest", "random forest"]
    first, again, other = (compare({"v": vectors}, labels, train, test, names, 2, seed)[0] for seed in (3, 3, 4))
    assert first.equals(again)
    assert not first.equals(other)


def test_a_class_that_is_never_predicted_has_precision_zero():
    # One constant feature: all images are classified as the larger class.
    labels = np.array([0] * 12 + [1] * 6)
    train, test = np.r_[0:8, 12:16], np.r_[8:12, 16:18]
    row = compare({"v": np.zeros((18, 1))}, labels, train, test, ["logistic regression"], folds=2).table.iloc[0]
    assert row["test accuracy"] == pytest.approx(4 / 6) and row["train accuracy"] == pytest.approx(8 / 12)
    assert row["test precision"] == pytest.approx((4 / 6 + 0) / 2)
    # A class without test images counts, too.
    row = compare({"v": np.zeros((18, 1))}, labels, train, test[:4], ["logistic regression"], folds=2).table.iloc[0]
    assert (row["test accuracy"], row["test precision"]) == (1, 0.5)


def test_neighbors_are_not_more_than_a_fold_leaves():
    vectors, labels = np.random.default_rng(0).normal(size=(10, 2)), np.arange(10) % 2
    # Six training images, three outside a fold: 5 or more neighbors are not tried, without a warning.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted = compare({"v": vectors}, labels, np.arange(6), np.arange(6, 10), ["k nearest"], folds=2).fitted[
            "v", "k nearest"
        ]
    assert predicted.settings["n_neighbors"] in (1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(test=a["train"][:2]), "2 images are in train and in test, the first is row 1"),
        (lambda a: a.update(folds=17), "n_splits=17 cannot be greater than"),
        (lambda a: a.update(vectors={"w": np.full((72, 2), np.nan)}), "Input X contains NaN"),
        (lambda a: a.update(labels=a["labels"] - 1), "24 images of train and test have no class"),
    ],
)
def test_invalid_arguments_are_refused(change, message):
    vectors, labels, train, test = clouds()
    arguments = {"vectors": {"v": vectors}, "labels": labels, "train": train, "test": test, "names": QUICK, "folds": 4}
    change(arguments)
    with pytest.raises(ValueError, match=message):
        compare(**arguments)


# ---- out of fold --------------------------------------------------------------------------------------------


def test_out_of_fold_predictions_do_not_use_the_image():
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(120, 8)), np.arange(120) % 4  # noise
    rows = np.arange(120)
    fitted = KNeighborsClassifier(1).fit(vectors, labels).predict(vectors)
    assert (fitted == labels).all()
    predicted = out_of_fold("k nearest", {"n_neighbors": 1}, vectors, labels)
    assert (predicted == labels).mean() < 0.45
    # Worked by hand, fold by fold.
    for fitted_rows, test_rows in StratifiedKFold(5, shuffle=True, random_state=0).split(rows, labels):
        model = KNeighborsClassifier(1).fit(vectors[fitted_rows], labels[fitted_rows])
        assert predicted[test_rows].tolist() == model.predict(vectors[test_rows]).tolist()
    assert out_of_fold("k nearest", {"n_neighbors": 1}, vectors, labels, seed=1).tolist() != predicted.tolist()


def test_out_of_fold_takes_the_settings_of_the_comparison():
    vectors, labels, train, test = clouds()
    name = "logistic regression"
    settings = compare({"v": vectors}, labels, train, test, [name], folds=3, seed=2).fitted["v", name].settings
    predicted = out_of_fold(name, settings, vectors[train], labels[train], folds=3, seed=2)
    table = compare({"v": vectors}, labels, train, test, [name], folds=3, seed=2).table
    # Folds of 16 each: the mean of their accuracies is the accuracy of all.
    assert (predicted == labels[train]).mean() == pytest.approx(table["cv accuracy"][0], abs=1e-12)
    wild = out_of_fold(name, {"C": 1e-9}, vectors[train], labels[train], folds=3, seed=2)
    assert wild.tolist() != predicted.tolist()


# ---- McNemar's test -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 5), (2, 9), (9, 2), (0, 6), (30, 51)])
def test_mcnemar_is_a_binomial_test(only_a, only_b):
    a = np.r_[np.ones(only_a), np.zeros(only_b), np.ones(7), np.zeros(4)].astype(bool)
    b = np.r_[np.zeros(only_a), np.ones(only_b), np.ones(7), np.zeros(4)].astype(bool)
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected) == mcnemar(b, a)


def test_mcnemar_worked_by_hand():
    # Six images that only one, always the same, classifies correctly: 2 · (1/2)⁶.
    assert mcnemar(np.ones(6, bool), np.zeros(6, bool)) == pytest.approx(1 / 32)


def test_published_order():
    share = {"A": 90, "B": 60, "C": 57, "D": 57}  # of 100 test images, the first ones
    right = {name: np.arange(100) < count for name, count in share.items()}
    table = compare_with_published(right, {"A": 50.0, "B": 60.0, "C": 70.0, "D": 50.0})
    assert list(zip(table["better"], table["worse"], table["verdict"], strict=True)) == [
        ("C", "B", "undecided"),
        ("C", "A", "reversed"),
        ("C", "D", "undecided"),
        ("B", "A", "reversed"),
        ("B", "D", "undecided"),
        ("A", "D", "no order"),
    ]
    assert table["published"].tolist() == [10, 20, 20, 10, 10, 0]
    assert table["measured"].tolist() == pytest.approx([-0.03, -0.33, 0, -0.3, 0.03, 0.33])
    pairs = zip(table["better"], table["worse"], strict=True)
    assert table["p"].tolist() == pytest.approx(holm(np.array([mcnemar(right[a], right[b]) for a, b in pairs])))
    holds = compare_with_published({"A": right["A"], "B": right["B"]}, {"A": 2, "B": 1})
    assert holds["verdict"].tolist() == ["holds"]


def test_many_pairs_need_a_clearer_difference():
    # Seven more images are significant for one pair, but not among six pairs.
    right = {name: np.arange(100) < count for name, count in {"A": 57, "B": 50, "C": 50, "D": 50}.items()}
    published = {"A": 4, "B": 3, "C": 2, "D": 1}
    alone = compare_with_published({name: right[name] for name in "AB"}, {name: published[name] for name in "AB"})
    assert alone["verdict"].tolist() == ["holds"]
    assert set(compare_with_published(right, published)["verdict"]) == {"undecided"}


# ---- fused with the prediction ------------------------------------------------------------------------------


def test_fused_with_the_class_by_hand():
    fused = with_prediction(np.array([[3, 4], [0, 0.5], [0, 0]]), np.array([1, 0, 1]), classes=3)
    assert fused.dtype == np.float32
    assert fused == pytest.approx(np.array([[0.6, 0.8, 0, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0]]))
    one, other = with_prediction(np.array([[3, 4], [0, 0.5]]), np.array([1, 1]), 2)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert cosine == pytest.approx((0.8 + 1) / 2)


def test_the_fused_search_is_the_classifier():
    rng = np.random.default_rng(0)
    images = ImageSet("three", tuple(Path(f"{i}.jpg") for i in range(60)), np.arange(60) % 3, ("a", "b", "c"))
    protocol = query_gallery(images, np.arange(30), np.arange(30, 60), "p")
    vectors = rng.random((60, 5))
    predicted = np.where(rng.random(60) < 0.6, images.labels, (images.labels + 1) % 3)
    predicted[30:] = images.labels[30:]  # the gallery is classified perfectly
    scores = evaluate(run(protocol, with_prediction(vectors, predicted, 3), open_index("exact:cosine")), protocol)
    # A query with the right prediction has its class in the first ranks.
    right = predicted[:30] == images.labels[:30]
    assert (scores.values["mAP"][right] == 1).all() and (scores.values["mAP"][~right] < 0.5).all()
    assert scores.values["top-1"].tolist() == right.astype(float).tolist()


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        ([0, 1, 2], "one class per vector"),
        ([0, 3], "integers 0 … 2"),
        ([0, -1], "integers 0 … 2"),
        ([0.0, 1.0], "integers 0 … 2"),
    ],
)
def test_classes_that_can_not_be_fused(predicted, message):
    with pytest.raises(ValueError, match=message):
        with_prediction(np.ones((2, 2)), np.array(predicted), 3)
