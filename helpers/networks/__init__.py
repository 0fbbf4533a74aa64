"""Networks: architectures, pretrained weights, compiled forms, and training."""

from importlib import import_module

from helpers import paths

#: Module → names that are imported from it on first use, because some modules need Keras.
_LAZY = {
    "baselines": ("Schedule",),
    "compiled": ("CompiledNetwork", "KerasNetwork", "NotTrusted", "NotTrustedWarning", "fastest"),
    "examples": ("Examples",),
    "losses": (
        "ActiveTriplets", "ContrastiveLoss", "CosineClassifier", "MarginSoftmaxLoss", "MeanDistance", "SupConLoss",
        "TripletLoss",
    ),
    "metric_heads": ("LinearMap", "principal_axes", "within_class_whitening"),
    "samplers": ("PKSampler",),
    "training": ("Plateau", "Training"),
    "transfer": ("SplitNetwork", "split_network"),
    "weights": ("WeightsUnavailable",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}

__all__ = [*_MODULE_OF]  # noqa: PLE0604

paths.quiet_tensorflow()


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
