"""Code that only notebooks use: lessons, checks of exercises, the notebook runner, comparisons and figures."""

from helpers import lazy

__all__, __getattr__ = lazy.exports(
    __name__,
    {
        "lesson": ("Lesson", "open_with_fallback"),
        "exercises": ("check_exercise",),
        "class_fusion": ("with_prediction",),
        "classifiers": ("compare_classifiers", "compare_with_published", "mcnemar", "out_of_fold"),
        "compression": ("to_float16", "to_int8"),
        "extractor_comparison": ("compare_extractors",),
        "keypoint_votes": ("VoteIndex",),
        "multi_stage": ("last_maps", "stage_vectors"),
        "open_set": ("calibrate_and_test",),
        "reranker_comparison": ("FirstSearch", "RerankerComparison", "compare_rerankers", "first_search"),
    },
)
