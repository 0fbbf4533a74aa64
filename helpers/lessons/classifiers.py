"""Classical classifiers on vectors, tuned on training images alone: how well do vectors tell classes apart?

The settings of each are chosen by grid search with stratified cross-validation on the training images; the test
images are looked at once, in the end. Two classifiers are compared on the same test images by McNemar's exact test:
only images that exactly one of the two gets right say which is better, and if they are alike, each of the two wins
such an image as often as a coin falls on heads.

Sources: Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages, 1947;
T. Dietterich, Approximate statistical tests for comparing supervised classification learning algorithms, 1998.
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import sklearn
from scipy.stats import binom
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

#: A difference counts if luck alone gives one as large in fewer than this share of cases.
SIGNIFICANT = 0.05


class Classifier(NamedTuple):
    """A classifier of scikit-learn and the settings to choose from.

    Attributes
    ----------
    make : its class. fixed : settings that are not tuned.
    grid : setting → values, of which cross-validation takes the best.
    scaled : whether each number of a vector is first brought to mean 0 and spread 1, as far as the images that it
        learns from tell. Linear classifiers need that to weigh all numbers alike.
    """

    make: type[ClassifierMixin]
    fixed: dict
    grid: dict[str, list]
    scaled: bool = False

    def build(self, seed: int, **settings) -> ClassifierMixin:
        """Ready to fit; ``settings`` by the names of the grid."""
        chance = {"random_state": seed} if "random_state" in self.make().get_params() else {}
        one = self.make(**self.fixed, **settings, **chance)
        return make_pipeline(StandardScaler(), one) if self.scaled else one

    @property
    def prefix(self) -> str:
        """What a setting's name begins with inside of the whole."""
        return f"{self.make.__name__.lower()}__" if self.scaled else ""


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
    """What a tuned classifier says.

    Attributes
    ----------
    settings : those that cross-validation chose.
    train, test : int64, the predicted class of each training image (which it has learned from) and test image.
    """

    settings: dict
    train: np.ndarray
    test: np.ndarray


class Study(NamedTuple):
    """The results as a table, and (name of the vectors, classifier) → what it said; see `study`."""

    table: pd.DataFrame
    fitted: dict[tuple[str, str], Fitted]


def study(
    vectors: Mapping[str, np.ndarray],
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    names: Sequence[str] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    jobs: int = 1,
) -> Study:
    """Every classifier on every kind of vectors.

    Parameters
    ----------
    vectors : name → float (n, d), row *i* describes image *i*.
    labels : int (n,), the classes; -1 is none.
    train, test : rows, without a common one. Settings are chosen and classifiers fitted on ``train`` alone.
    names : of `CLASSIFIERS`; None is all.
    jobs : fits at a time; changes how long it takes, not what comes out.

    Returns
    -------
    The table has one row a kind of vectors and classifier: ``fusion``, ``classifier``, ``settings``, ``cv accuracy``
    (mean over the folds, with the best settings), ``train accuracy``, ``train precision``, ``test accuracy``, ``low``
    and ``high`` (its 95 % interval by Wilson), ``test precision``. Precision is the plain mean over the classes of the
    training images; a class that is never predicted counts 0.

    Raises
    ------
    ValueError : arrays that don't fit, NaN or infinity, an image on both sides or without a class, a class with fewer
        training images than folds.
    KeyError : no classifier has this name; the message lists those that there are.
    """
    names = list(CLASSIFIERS) if names is None else list(names)
    for name in names:
        _known(name)
    labels = np.asarray(labels)
    train, test = _rows(train, labels, "train"), _rows(test, labels, "test")
    if len(both := np.intersect1d(train, test)):
        raise ValueError(f"{len(both)} images are in train and in test, the first is row {both[0]}")
    known = _checked_labels(labels[train], folds)
    for fusion, array in vectors.items():
        _checked_vectors(array, labels, fusion)
    rows, fitted = [], {}
    for fusion, array in vectors.items():
        array = np.asarray(array)
        for name in names:
            one, cv_accuracy = _fitted(name, array, labels, train, test, folds, seed, jobs)
            fitted[fusion, name] = one
            on_train, on_test = (labels[train] == one.train).mean(), (labels[test] == one.test).mean()
            precisions = [
                precision_score(labels[part], said, labels=known, average="macro", zero_division=0)
                for part, said in ((train, one.train), (test, one.test))
            ]
            rows.append(
                (fusion, name, _told(one.settings), cv_accuracy, on_train, precisions[0],
                 on_test, *wilson_interval(on_test, len(test)), precisions[1])
            )  # fmt: skip
    columns = ["fusion", "classifier", "settings", "cv accuracy", "train accuracy", "train precision"]
    return Study(pd.DataFrame(rows, columns=[*columns, "test accuracy", "low", "high", "test precision"]), fitted)


def _fitted(
    name: str, array: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, folds: int, seed: int,
    jobs: int,
) -> tuple[Fitted, float]:  # fmt: skip
    """One classifier on one kind of vectors, tuned and fitted, and its accuracy in cross-validation.

    Kept on disk by the vectors, labels, rows and settings, as all of it follows from them.
    """
    one = _known(name)
    search = _search(name, len(train), folds, seed, jobs)
    key = {
        "vectors": results.fingerprint(array), "labels": results.fingerprint(labels),
        "train": results.fingerprint(train), "test": results.fingerprint(test), "folds": folds, "seed": seed,
        "classifier": one.make.__name__, "fixed": one.fixed, "grid": search.param_grid, "scaled": one.scaled,
        "scikit-learn": sklearn.__version__,
    }  # fmt: skip

    def compute() -> dict[str, np.ndarray]:
        search.fit(array[train], labels[train])
        said = {part: search.predict(array[rows]) for part, rows in (("train", train), ("test", test))}
        return {"settings": json.dumps(_plain(search.best_params_)), "cv accuracy": search.best_score_, **said}

    found = results.cached("classifier", key, compute)
    return Fitted(json.loads(str(found["settings"])), found["train"], found["test"]), float(found["cv accuracy"])


def out_of_fold(
    name: str, settings: Mapping, vectors: np.ndarray, labels: np.ndarray, folds: int = FOLDS, seed: int = 0
) -> np.ndarray:
    """int64 (n,): the class of each training image, predicted by a classifier that has not learned from it.

    What a classifier says of images that it has learned from is what it was told. Here, each fold is predicted by one
    that has learned from the others (Wolpert 1992, Stacked generalization).

    Parameters
    ----------
    name : of `CLASSIFIERS`. settings : as `Fitted.settings` has them.
    vectors : float (n, d) of the training images. labels : int (n,), their classes.

    Raises
    ------
    As `study`.
    """
    labels, vectors = np.asarray(labels), np.asarray(vectors)
    _checked_vectors(vectors, labels, "training vectors")
    _checked_labels(labels, folds)
    return cross_val_predict(
        _known(name).build(seed, **settings), vectors, labels, cv=_dealt(folds, seed), method="predict"
    )


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """The two-sided p-value of "both are right equally often", from bool (n,) each: right, on the same images.

    1 where they are right on the same images, as nothing tells them apart then.

    Raises
    ------
    ValueError : not one answer an image.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"both must be judged on the same images, shape (n,), got {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(min(1.0, 2 * binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def order_of_merit(right: Mapping[str, np.ndarray], published: Mapping[str, float]) -> pd.DataFrame:
    """Does a published order hold here? Each pair of classifiers, on the same test images.

    Parameters
    ----------
    right : classifier → bool (n,), which test images it gets right.
    published : classifier → accuracy that was published; the same names.

    Returns
    -------
    One row a pair, the published better one as ``better``, the other as ``worse``: ``published`` and ``measured``
    (differences of their accuracies), ``p`` (McNemar's, made larger for the number of pairs after Holm), and
    ``verdict``: "holds", "reversed", "undecided" where p is not below 0.05, "no order" where equal ones were published.

    Raises
    ------
    ValueError : other names on one side, or not one answer an image.
    """
    if set(right) != set(published):
        raise ValueError(f"the same classifiers must stand on both sides, got {list(right)} and {list(published)}")
    best_first = sorted(published, key=lambda name: -published[name])
    pairs = list(combinations(best_first, 2))
    p_values = holm(np.array([mcnemar(right[a], right[b]) for a, b in pairs]))
    rows = []
    for (a, b), p in zip(pairs, p_values, strict=True):
        claimed, measured = published[a] - published[b], float(np.mean(right[a]) - np.mean(right[b]))
        verdict = "undecided" if p >= SIGNIFICANT else "holds" if measured > 0 else "reversed"
        rows.append((a, b, claimed, measured, float(p), verdict if claimed else "no order"))
    return pd.DataFrame(rows, columns=["better", "worse", "published", "measured", "p", "verdict"])


def _known(name: str) -> Classifier:
    if name not in CLASSIFIERS:
        raise KeyError(f"no classifier is called {name!r}; there are: {', '.join(CLASSIFIERS)}")
    return CLASSIFIERS[name]


def _search(name: str, images: int, folds: int, seed: int, jobs: int) -> GridSearchCV:
    one = _known(name)
    grid = {one.prefix + setting: values for setting, values in one.grid.items()}
    if "n_neighbors" in grid:
        # No more neighbors can be asked for than a fold leaves.
        left = images - math.ceil(images / folds)
        grid["n_neighbors"] = [count for count in grid["n_neighbors"] if count <= left]
    return GridSearchCV(one.build(seed), grid, scoring="accuracy", cv=_dealt(folds, seed), n_jobs=jobs)


def _dealt(folds: int, seed: int) -> StratifiedKFold:
    return StratifiedKFold(folds, shuffle=True, random_state=seed)


def _plain(settings: Mapping) -> dict:
    """Without the pipeline's prefix."""
    return {name.rpartition("__")[2]: value for name, value in settings.items()}


def _told(settings: Mapping) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in settings.items())


def _rows(rows: np.ndarray, labels: np.ndarray, what: str) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 1 or not len(rows) or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"{what} must be a list of at least one row, got {rows.dtype} of shape {rows.shape}")
    if rows.min() < 0 or rows.max() >= len(labels):
        raise ValueError(f"{what} must hold rows 0 … {len(labels) - 1}, got {rows.min()} … {rows.max()}")
    if (labels[rows] < 0).any():
        raise ValueError(f"{what}: {(labels[rows] < 0).sum()} images have no class; leave them out")
    return rows


def _checked_labels(labels: np.ndarray, folds: int) -> np.ndarray:
    """The classes."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"there must be two classes or more to tell apart, got {len(classes)}")
    if counts.min() < folds:
        raise ValueError(
            f"class {classes[counts.argmin()]} has {counts.min()} training images, too few for {folds} folds"
        )
    return classes


def _checked_vectors(vectors: np.ndarray, labels: np.ndarray, what: str) -> None:
    vectors = np.asarray(vectors)
    if labels.ndim != 1 or vectors.ndim != 2 or len(vectors) != len(labels):
        raise ValueError(f"{what}: vectors (n, d) and labels (n,) needed, got {vectors.shape} and {labels.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{what}: {(~np.isfinite(vectors).all(axis=1)).sum()} vectors hold NaN or infinity")
