"""Compares scikit-learn's classifiers on feature vectors.

Their settings are chosen by grid search with stratified cross-validation on the training images. Two classifiers are
compared on the same test images by McNemar's exact test: among the images that exactly one of the two classifies
correctly, each of two equally good classifiers has half.

Sources: Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages, 1947;
T. Dietterich, Approximate statistical tests for comparing supervised classification learning algorithms, 1998.
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import sklearn
from scipy.stats import binomtest
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from helpers.evaluation.intervals import holm, wilson_interval
from helpers.features import results

FOLDS = 5

#: The significance level.
SIGNIFICANT = 0.05


class Classifier(NamedTuple):
    """A classifier of scikit-learn with its settings.

    Attributes
    ----------
    make : its class. fixed : settings that are not tuned.
    grid : setting → values for the cross-validation.
    scaled : whether a ``StandardScaler`` precedes it, as linear classifiers need.
    """

    make: type[ClassifierMixin]
    fixed: dict
    grid: dict[str, list]
    scaled: bool = False

    def build(self, seed: int, **settings: Any) -> ClassifierMixin:
        """A new classifier; ``settings`` have the names of the grid."""
        random = {"random_state": seed} if "random_state" in self.make().get_params() else {}
        one = self.make(**self.fixed, **settings, **random)
        return make_pipeline(StandardScaler(), one) if self.scaled else one


CLASSIFIERS = {
    "naive Bayes": Classifier(GaussianNB, {}, {"var_smoothing": [1e-9, 1e-3, 1e-2, 1e-1, 1.0, 10.0]}),
    "logistic regression": Classifier(
        LogisticRegression, {"max_iter": 500, "tol": 1e-3}, {"C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}, scaled=True
    ),
    "k nearest": Classifier(KNeighborsClassifier, {}, {"n_neighbors": [1, 3, 5, 10, 20, 40, 80, 160, 320]}),
    "linear SVM": Classifier(LinearSVC, {"dual": False, "tol": 1e-2}, {"C": [1e-6, 1e-5, 1e-4, 1e-3]}, scaled=True),
    "random forest": Classifier(RandomForestClassifier, {"n_estimators": 60}, {"min_samples_leaf": [1, 3, 10]}),
}


class Fitted(NamedTuple):
    """The predictions of a tuned classifier.

    Attributes
    ----------
    settings : those that cross-validation selected. cv_accuracy : with them, the mean over the folds.
    train, test : int64, the predicted class of each training image and of each test image.
    """

    settings: dict
    cv_accuracy: float
    train: np.ndarray
    test: np.ndarray


class ClassifierComparison(NamedTuple):
    """The results as a table, and (name of the vectors, classifier) → predictions; see `compare_classifiers`."""

    table: pd.DataFrame
    fitted: dict[tuple[str, str], Fitted]


def compare_classifiers(
    vectors: Mapping[str, np.ndarray], labels: np.ndarray, train: np.ndarray, test: np.ndarray,
    names: Sequence[str] | None = None, folds: int = FOLDS, seed: int = 0, jobs: int = 1,
) -> ClassifierComparison:  # fmt: skip
    """Fit and test every classifier on every kind of vectors.

    Parameters
    ----------
    vectors : name → float (n, d), row *i* for image *i*.
    labels : int (n,), the classes; -1 is none.
    train, test : disjoint rows. Settings are selected and classifiers fitted on ``train`` only.
    names : names in `CLASSIFIERS`; None is all.
    jobs : number of parallel fits; it does not change the result.

    Returns
    -------
    The table has one row per kind of vectors and classifier: ``fusion``, ``classifier``, ``settings``, ``cv accuracy``
    (mean over the folds, with the best settings), ``train accuracy``, ``train precision``, ``test accuracy``, ``low``
    and ``high`` (its 95 % interval by Wilson), ``test precision``. Precision is the macro average over the classes of
    the training images; it is 0 for a class without predictions.
    """
    if len(both := np.intersect1d(train, test)):
        raise ValueError(f"{len(both)} images are in train and in test, the first is row {both[0]}")
    if (no_class := labels[np.concatenate([train, test])] < 0).any():
        raise ValueError(f"{no_class.sum()} images of train and test have no class; leave them out")
    rows, fitted = [], {}
    for (fusion, array), name in product(vectors.items(), CLASSIFIERS if names is None else names):
        one = fitted[fusion, name] = _fitted(name, array, labels, train, test, folds, seed, jobs)
        on_train, on_test = (labels[train] == one.train).mean(), (labels[test] == one.test).mean()
        precisions = [
            precision_score(labels[part], predicted, labels=np.unique(labels[train]), average="macro", zero_division=0)
            for part, predicted in ((train, one.train), (test, one.test))
        ]
        settings = ", ".join(f"{key} = {value:g}" for key, value in one.settings.items())
        rows.append(
            (fusion, name, settings, one.cv_accuracy, on_train, precisions[0],
             on_test, *wilson_interval(on_test, len(test)), precisions[1])
        )  # fmt: skip
    columns = ["fusion", "classifier", "settings", "cv accuracy", "train accuracy", "train precision"]
    table = pd.DataFrame(rows, columns=[*columns, "test accuracy", "low", "high", "test precision"])
    return ClassifierComparison(table, fitted)


def _fitted(
    name: str, array: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, folds: int, seed: int,
    jobs: int,
) -> Fitted:  # fmt: skip
    """Tune and fit one classifier on one kind of vectors. The result is cached on disk."""
    one = CLASSIFIERS[name]
    search = _search(name, len(train), folds, seed, jobs)
    key = {
        "vectors": results.fingerprint(array), "labels": results.fingerprint(labels),
        "train": results.fingerprint(train), "test": results.fingerprint(test), "folds": folds, "seed": seed,
        "classifier": one.make.__name__, "fixed": one.fixed, "grid": search.param_grid, "scaled": one.scaled,
        "scikit-learn": sklearn.__version__,
    }  # fmt: skip

    def compute() -> dict[str, np.ndarray]:
        search.fit(array[train], labels[train])
        predicted = {part: search.predict(array[rows]) for part, rows in (("train", train), ("test", test))}
        # Without the pipeline's prefix.
        settings = {setting.rpartition("__")[2]: value for setting, value in search.best_params_.items()}
        return {"settings": json.dumps(settings), "cv accuracy": search.best_score_, **predicted}

    found = results.cached("classifier", key, compute)
    return Fitted(json.loads(str(found["settings"])), float(found["cv accuracy"]), found["train"], found["test"])


def out_of_fold(
    name: str, settings: Mapping, vectors: np.ndarray, labels: np.ndarray, folds: int = FOLDS, seed: int = 0
) -> np.ndarray:
    """int64 (n,): the class of each training image, predicted by a classifier that was fitted on the other folds.

    Predictions of training images by the classifier that was fitted on them would be too good (Wolpert 1992, Stacked
    generalization).

    Parameters
    ----------
    name : a name in `CLASSIFIERS`. settings : see `Fitted.settings`.
    vectors : float (n, d) of the training images. labels : int (n,), their classes.
    """
    return cross_val_predict(CLASSIFIERS[name].build(seed, **settings), vectors, labels, cv=_folds(folds, seed))


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """McNemar's two-sided p-value for equal accuracies.

    a, b : bool (n,): whether each classifier is right, for the same images. If both are right for the same images, the
        p-value is 1.
    """
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    # Without a difference, as for one image: 1.
    return float(binomtest(only_a, max(1, only_a + only_b)).pvalue)


def compare_with_published(right: Mapping[str, np.ndarray], published: Mapping[str, float]) -> pd.DataFrame:
    """Compare each pair of classifiers on the same test images with their published order.

    Parameters
    ----------
    right : classifier → bool (n,), whether it classifies each test image correctly.
    published : classifier → published accuracy; the same names.

    Returns
    -------
    One row per pair, with the published better one as ``better`` and the other as ``worse``: ``published`` and
    ``measured`` (differences of their accuracies), ``p`` (McNemar's, corrected by Holm's method), and ``verdict``:
    "holds", "reversed", "undecided" if p is at least 0.05, "no order" for equal published accuracies.
    """
    pairs = list(combinations(sorted(published, key=lambda name: -published[name]), 2))
    p_values = holm(np.array([mcnemar(right[a], right[b]) for a, b in pairs]))
    rows = []
    for (a, b), p in zip(pairs, p_values, strict=True):
        claimed, measured = published[a] - published[b], float(np.mean(right[a]) - np.mean(right[b]))
        verdict = "undecided" if p >= SIGNIFICANT else "holds" if measured > 0 else "reversed"
        rows.append((a, b, claimed, measured, float(p), verdict if claimed else "no order"))
    return pd.DataFrame(rows, columns=["better", "worse", "published", "measured", "p", "verdict"])


def _search(name: str, images: int, folds: int, seed: int, jobs: int) -> GridSearchCV:
    one = CLASSIFIERS[name]
    prefix = f"{one.make.__name__.lower()}__" if one.scaled else ""
    grid = {prefix + setting: values for setting, values in one.grid.items()}
    if "n_neighbors" in grid:
        # At most the number of images outside a fold.
        most = images - math.ceil(images / folds)
        grid["n_neighbors"] = [count for count in grid["n_neighbors"] if count <= most]
    return GridSearchCV(one.build(seed), grid, scoring="accuracy", cv=_folds(folds, seed), n_jobs=jobs)


def _folds(folds: int, seed: int) -> StratifiedKFold:
    return StratifiedKFold(folds, shuffle=True, random_state=seed)
