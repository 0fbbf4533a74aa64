"""Networks: architectures, pretrained weights, compiled forms, and training."""

from helpers import lazy, paths

__all__, __getattr__ = lazy.exports(
    __name__,
    {
        "baselines": ("Schedule",),
        "compiled": ("CompiledNetwork", "KerasNetwork", "NotTrusted", "NotTrustedWarning", "fastest"),
        "detector_files": ("DetectorFileError",),
        "detectors": ("Detections", "Detector", "Prepared"),
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
    },
)  # fmt: skip

paths.set_up_tensorflow()
