"""The checks of the exercises of notebook 05 accept right solutions, and name the mistake of wrong ones."""

import keras
import numpy as np
import pytest

from helpers.lessons.exercises import check_exercise


def batch_normalization(x, moving_mean, moving_variance, training, momentum=0.99, epsilon=1e-3):
    mean, variance = moving_mean, moving_variance
    if training:
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        moving_mean = momentum * moving_mean + (1 - momentum) * mean
        moving_variance = momentum * moving_variance + (1 - momentum) * variance
    return (x - mean) / np.sqrt(variance + epsilon), moving_mean, moving_variance


def by_keras(x, moving_mean, moving_variance, training, momentum=0.99, epsilon=1e-3):
    layer = keras.layers.BatchNormalization(
        momentum=momentum, epsilon=epsilon, center=False, scale=False, dtype="float64"
    )
    layer.build(x.shape)
    layer.set_weights([moving_mean, moving_variance])
    output = layer(x, training=training)
    return np.asarray(output), *layer.get_weights()


def test_right_solutions_pass():
    assert check_exercise("05.1", 2048 * 37 + 37)
    assert check_exercise("05.2", batch_normalization)


def test_the_reference_agrees_with_keras():
    assert check_exercise("05.2", by_keras)


@pytest.mark.parametrize(
    ("value", "hint"), [(2048 * 37, "a bias"), (20_490, "10 classes"), (37, "length of the embedding")]
)
def test_a_wrong_value_gets_a_hint(value, hint, capsys):
    assert check_exercise("05.1", value) is False
    assert hint in capsys.readouterr().out


def always_in_inference(x, moving_mean, moving_variance, training, momentum=0.99, epsilon=1e-3):
    return batch_normalization(x, moving_mean, moving_variance, False, momentum, epsilon)


def momentum_of_the_new_value(x, moving_mean, moving_variance, training, momentum=0.99, epsilon=1e-3):
    return batch_normalization(x, moving_mean, moving_variance, training, 1 - momentum, epsilon)


def over_the_batch_only(x, moving_mean, moving_variance, training, momentum=0.99, epsilon=1e-3):
    if not training:
        return batch_normalization(x, moving_mean, moving_variance, False, momentum, epsilon)
    output = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + epsilon)
    return output, *batch_normalization(x, moving_mean, moving_variance, True, momentum, epsilon)[1:]


def in_place(x, moving_mean, moving_variance, training, momentum=0.99, epsilon=1e-3):
    output, mean, variance = batch_normalization(x, moving_mean, moving_variance, training, momentum, epsilon)
    moving_mean[:] = mean
    return output, mean, variance


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (always_in_inference, "output differs with training=True"),
        (momentum_of_the_new_value, "moving mean differs"),
        (over_the_batch_only, "output differs"),
        (in_place, "must not change"),
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_wrong_functions_get_a_hint(function, hint, capsys):
    assert check_exercise("05.2", function) is False
    assert hint in capsys.readouterr().out


def test_a_missing_solution_is_no_mistake():
    assert check_exercise("05.1", None) is None
    assert check_exercise("05.2", lambda *_, **__: None) is None
