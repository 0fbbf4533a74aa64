"""Hashes of models and trainings, for names of cached files: equal hashes must mean equal results."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

    from helpers.networks.examples import Examples

#: Part of every training's fingerprint. Raise it when `training.fit` changes its results.
VERSION = 3


def of_model(model: "keras.Model") -> str:
    """A hash of a model's layers, their settings and connections, and all weights.

    It does not depend on names, which Keras numbers consecutively ("dense_3"), or on which layers are frozen.
    """
    config = _nameless(model.get_config(), _numbers(model), skipped=("trainable",))
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for value in model.weights:
        digest.update(np.ascontiguousarray(value.numpy()).data)
    return digest.hexdigest()


def of_training(model: "keras.Model", train: "Examples", settings: dict) -> str:
    """A hash of everything that determines the result of a training: 16 hexadecimal digits.

    model : compiled, with a built optimizer.
    settings : the other arguments of `training.fit`, as plain JSON.
    """
    config, own = _settings(model)
    everything = {"version": VERSION, "config": config, "loss": own, "train": train.fingerprint, **settings}
    digest = hashlib.sha256(json.dumps(everything, sort_keys=True, default=_plain).encode())
    for variable in model.weights:
        value = np.ascontiguousarray(variable.numpy())
        digest.update(f"{value.dtype} {value.shape} {variable.trainable}".encode() + value.data)
    for variable in model.optimizer.variables:
        value = np.ascontiguousarray(variable.numpy())
        # In a new optimizer most are zero, and hashing them takes longest.
        digest.update(value.data if value.any() else b"zeros")
    return digest.hexdigest()[:16]


def of_settings(model: "keras.Model") -> str:
    """A hash of a compiled model's layers, loss and optimizer, without weights: 16 hexadecimal digits."""
    config, own = _settings(model)
    return hashlib.sha256(json.dumps([config, own], sort_keys=True, default=_plain).encode()).hexdigest()[:16]


def _settings(model: "keras.Model") -> tuple[dict, list[dict]]:
    """The settings of a compiled model with its optimizer, and those of losses without `get_config`."""
    import keras

    optimizers = [model.optimizer, getattr(model.optimizer, "inner_optimizer", model.optimizer)]
    numbers = _numbers(model, *optimizers)
    compiled = model.get_compile_config() | {"optimizer": keras.saving.serialize_keras_object(model.optimizer)}
    # A loss without `get_config` also has settings.
    losses = [vars(loss) for loss in keras.tree.flatten(model.loss) if hasattr(loss, "__dict__")]
    own = [
        {key: value for key, value in loss.items() if isinstance(value, bool | int | float | str)} for loss in losses
    ]
    return _nameless({"model": model.get_config(), "compile": compiled}, numbers), own


def _numbers(model: "keras.Model", *others: Any) -> dict[str, str]:
    """The name of each part → its number in the order of the layers, which is independent of names."""
    parts = [part for layer in model._flatten_layers() for part in (layer, *getattr(layer, "operations", ()))]
    return {name: f"#{number}" for number, name in enumerate(dict.fromkeys(part.name for part in (*parts, *others)))}


def _nameless(config: Any, numbers: dict[str, str], skipped: tuple[str, ...] = ()) -> Any:
    """A config with numbers instead of names."""
    if isinstance(config, dict):
        return {key: _nameless(value, numbers, skipped) for key, value in config.items() if key not in skipped}
    if isinstance(config, list | tuple):
        return [_nameless(value, numbers, skipped) for value in config]
    return numbers.get(config, config) if isinstance(config, str) else config


def _plain(value: Any) -> Any:
    import keras

    return value.tolist() if isinstance(value, np.ndarray | np.generic) else keras.saving.serialize_keras_object(value)
