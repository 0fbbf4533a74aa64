"""The bookkeeping of every notebook: its task, its figures, expected numbers, and the results file."""

import json
import platform
from io import BytesIO
from pathlib import Path
from time import perf_counter

from matplotlib.figure import Figure
from PIL import Image

from helpers import extras, paths
from helpers.evaluation import builders, leaderboard, protocol_files
from helpers.evaluation.metrics import Scores
from helpers.evaluation.protocol import Protocol
from helpers.features.extractor import FeatureExtractor
from helpers.features.registry import open_extractor
from helpers.files import write_text
from helpers.images import imagenet, samples
from helpers.images.imageset import ImageSet
from helpers.lessons import machine
from helpers.networks.weights import WeightsUnavailable
from helpers.visualization.tables import box

with extras.importing("notebooks", "IPython"):
    from IPython.display import Image as DisplayedImage
    from IPython.display import display

#: The metrics in a results file.
HEADLINES = ("top-1", "top-3", "top-5", "top-10", "mAP", "mAP@10")


class Lesson:
    """One run of one notebook.

    Parameters
    ----------
    name : the notebook's file name without the suffix, e.g. ``"02_objects"``.
    profile : ``sample`` or ``full``. seed : the notebook's seed. Both are written to the results file.
    """

    def __init__(self, name: str, profile: str, seed: int):
        if profile not in ("sample", "full"):
            raise ValueError(f"PROFILE must be 'sample' or 'full', got {profile!r}")
        self.name, self.profile, self.seed = name, profile, seed
        self._start = perf_counter()
        self._checks: list[dict] = []
        self._figures: list[str] = []

    def task(self, max_queries: int | None = None) -> tuple[Protocol, ImageSet]:
        """The profile's default task, a protocol and its images: sample-distractors or imagenette-val-train.

        max_queries : use about this number of queries, at regular intervals; the protocol then has another name.
        """
        if self.profile == "sample":
            protocol, images = protocol_files.frozen("sample-distractors").bind(samples.with_distractors())
        else:
            protocol, images = protocol_files.frozen("imagenette-val-train").bind(imagenet.imagenette())
        if max_queries:
            few = protocol.queries[:: max(1, len(protocol.queries) // max_queries)]
            protocol = builders.query_gallery(images, few, protocol.gallery, f"{protocol.name}-{len(few)}-queries")
        return protocol, images

    def show(self, figure: Figure, name: str, dpi: int = 80, save: bool = True) -> None:
        """Show a figure; with ``save`` also write it to ``figures/<notebook>_<name>.png``.

        Figures of the full profile are not written, because the licenses do not allow copies of their images.
        """
        image = _png(figure, dpi)
        path = paths.figures_dir() / f"{self.name}_{name}.png"
        if save and self.profile == "sample":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
            self._figures.append(path.name)
        display(DisplayedImage(image))

    def expect(self, what: str, measured: float, expected: float, tolerance: float, when: bool = True) -> None:
        """Print an expected number next to the measured one, and check that they differ by at most ``tolerance``.

        when : whether the expectation applies to this run (its data, weights and size). If not, only the measured
            number is printed.

        Raises
        ------
        AssertionError : the difference is larger, so the notebook's text is wrong for this run.
        """
        if not when:
            print(f"{what}: {measured:.3f} (no expectation for this data or these settings)")
            return
        holds = abs(measured - expected) <= tolerance
        self._checks.append({"what": what, "measured": measured, "expected": expected, "tolerance": tolerance})
        print(f"{what}: {measured:.3f}, expected {expected:.3f} ± {tolerance:g} {'✓' if holds else '✗'}")
        if not holds:
            raise AssertionError(f"{what} is {measured:.4f}, but the text says {expected} ± {tolerance}")

    def record(
        self, scores: Scores, protocol: Protocol, extractor: FeatureExtractor, index: str = "exact:cosine",
        query_ms: float | None = None,
    ) -> None:  # fmt: skip
        """Write the scores of a method to the leaderboard, with this run's profile."""
        leaderboard.record(
            scores, protocol, profile=self.profile, extractor=extractor.name, weights=extractor.weights,
            dim=extractor.dim, index=index, extract_ips=extractor.images_per_second, query_ms=query_ms,
            index_bytes=4 * extractor.dim * len(protocol.gallery),
        )  # fmt: skip

    def finish(self, headline: str, data: dict, extractor: FeatureExtractor, scores: dict[str, Scores]) -> Path:
        """Write ``figures/results/<notebook>.json``: the headline, data, weights, metrics, seconds and seed.

        extractor : the notebook's main extractor. scores : name → scores.
        """
        path = paths.results_dir() / f"{self.name}.json"
        tensorflow = machine.installed("tensorflow-cpu") or machine.installed("tensorflow") or "none"
        content = {
            "notebook": self.name,
            "profile": self.profile,
            "seed": self.seed,
            "headline": headline,
            "data": data,
            "weights": {"extractor": extractor.fingerprint, **getattr(extractor, "origin", {})},
            "metrics": {
                f"{name}/{metric}": round(score.mean(metric), 6)
                for name, score in scores.items()
                for metric in HEADLINES
                if metric in score.metrics
            },
            "checks": self._checks,
            "figures": self._figures,
            "seconds": round(perf_counter() - self._start, 1),
            "machine": {"python": platform.python_version(), "tensorflow": tensorflow, "system": platform.system()},
        }
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        print(f"{headline}\nwritten: {path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path.name}")
        return path


def open_with_fallback(name: str, fallback: str | None) -> FeatureExtractor:
    """Open an extractor; if its weights are not available, show a warning box and open the ``fallback``.

    Raises
    ------
    WeightsUnavailable : the trained weights are not available, and ``fallback`` is None.
    """
    try:
        return open_extractor(name)
    except WeightsUnavailable as error:
        if fallback is None:
            raise
        display(box(f"{error}\n\nThis run uses {fallback}; its numbers differ from those in the text.", "caution"))
        return open_extractor(fallback)


def _png(figure: Figure, dpi: int) -> bytes:
    """The figure as a PNG with 256 colors, a third of the bytes: it keeps the notebooks small."""
    drawn, small = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()
