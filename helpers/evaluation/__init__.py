"""Evaluation: protocols, metrics, confidence intervals, and the leaderboard."""

from helpers import lazy

__all__, __getattr__ = lazy.exports(
    __name__,
    {
        "protocol": ("Protocol", "ProtocolMismatch"),
        "builders": (
            "disjoint_split", "fewer_queries", "held_out", "learnable", "leave_one_out", "one_per_class_gallery",
            "query_gallery", "unseen_classes",
        ),
        "protocol_files": ("ProtocolFileError", "frozen", "frozen_names"),
        "runner": ("excluding", "run"),
        "metrics": (
            "LeakyRanking", "Scores", "NoRelevantImageWarning", "average_precision", "confusion", "evaluate",
            "per_class", "relevance_mask",
        ),
        "intervals": ("bootstrap_interval", "bootstrap_intervals", "holm", "paired_difference", "wilson_interval"),
        "known_item": ("KnownItemResults", "search_known_items"),
        "verification": ("accuracy_across_people", "error_curve", "error_intervals", "pairs", "similarities"),
        "trec": ("write_qrels", "write_run"),
        "detection": ("DetectionScores", "KnownObjects", "ScoredBoxes", "evaluate_detections"),
    },
)  # fmt: skip
