"""Code that only notebooks use: lessons, checks of exercises, the notebook runner, comparisons and figures."""

from importlib import import_module

#: Module → names that are imported from it at their first use.
_LATER = {
    "lesson": ("Lesson", "open_with_fallback"),
    "exercises": ("check",),
    "class_fusion": ("with_prediction",),
    "classifiers": ("compare_classifiers", "compare_with_published", "mcnemar", "out_of_fold"),
    "compression": ("from_int8", "to_float16", "to_int8"),
    "extractor_comparison": ("compare_extractors",),
    "keypoint_votes": ("VoteIndex",),
    "multi_stage": ("last_maps", "stage_vectors"),
    "open_set": ("calibrate_and_test",),
    "reranker_comparison": ("FirstSearch", "RerankerComparison", "compare_rerankers", "first_search"),
}
_MODULE_OF = {name: module for module, names in _LATER.items() for name in names}

__all__ = [*_MODULE_OF]  # noqa: PLE0604


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
