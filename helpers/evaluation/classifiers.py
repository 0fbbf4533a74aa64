"""Classical classifiers on vectors, each tuned on its training pictures alone: how well do vectors tell classes apart?"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from helpers.evaluation.intervals import wilson_interval

FOLDS = 5


class Classifier(NamedTuple):
    """A classifier of scikit-learn and the settings to choose from.

    Attributes
    ----------
    make : seed → the classifier. grid : setting → values. scaled : whether each number of a vector is first brought to
        mean 0 and spread 1, as far as the training pictures tell.
    """

    make: type
    fixed: dict
    grid: dict
    scaled: bool


CLASSIFIERS = {
    "naive Bayes": Classifier(GaussianNB, {}, {"var_smoothing": [1e-9, 1e-3, 1e-2, 1e-1]}, False),
    "logistic regression": Classifier(LogisticRegression, {"max_iter": 500}, {"C": [1e-4, 1e-3, 1e-2]}, True),
    "k nearest": Classifier(KNeighborsClassifier, {}, {"n_neighbors": [1, 5, 10, 20, 40]}, False),
    "linear SVM": Classifier(LinearSVC, {"dual": False}, {"C": [1e-5, 1e-4, 1e-3]}, True),
    "random forest": Classifier(
        RandomForestClassifier, {"n_estimators": 300}, {"max_features": ["sqrt", 0.1], "min_samples_leaf": [1, 5]}, False
    ),
}
