"""Feature extractors, and the store that keeps their vectors on disk."""

from helpers import lazy

__all__, __getattr__ = lazy.exports(
    __name__,
    {
        "composite": ("Concatenated", "Projected", "TestTimeAugmentation"),
        "deep": ("ClassScores", "ModelExtractor", "NetworkExtractor"),
        "extractor": ("FeatureExtractor",),
        "registry": ("names", "open_extractor"),
    },
)
