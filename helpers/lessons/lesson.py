"""The bookkeeping of every notebook: its task, its figures, expected numbers, and the results file."""

import json
import platform
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

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
from helpers.networks.weights import WeightsUnavailable
from helpers.visualization.tables import box

with extras.importing("notebooks", "IPython"):
    from IPython.display import Image as DisplayedImage
    from IPython.display import display

#: The metrics in a results file.
HEADLINES = ("top-1", "top-3", "top-5", "top-10", "mAP", "mAP@10")

#: The least tolerance of an expectation on official archives. The expected numbers were measured on copies of images,
#: some of them with fewer pixels and more JPEG artifacts; such changes of all images changed scores by up to 0.02.
OFFICIAL_TOLERANCE = 0.03

#: Pixels per inch at which a figure is shown. It is drawn with more, for screens of high resolution and for print.
_SCREEN_DPI = 80


class Lesson:
    """One run of one notebook.

    Parameters
    ----------
    name : the notebook's file name without the suffix, e.g. ``"02_objects"``.
    namespace : ``globals()`` of the notebook. Its names in upper case with plain values are the parameters. ``PROFILE``
        (``sample`` or ``full``) and ``SEED`` are required.
    """

    def __init__(self, name: str, namespace: Mapping[str, Any]):
        self.parameters = {key: value for key, value in namespace.items() if key.isupper() and _is_plain(value)}
        missing = [key for key in ("PROFILE", "SEED") if key not in self.parameters]
        if missing:
            raise ValueError(
                f"{name}: {' and '.join(missing)} must be set before the lesson starts; run the cell with the "
                "parameters first"
            )
        self.name, self.profile, self.seed = name, self.parameters["PROFILE"], self.parameters["SEED"]
        if self.profile not in ("sample", "full"):
            raise ValueError(f"PROFILE must be 'sample' or 'full', got {self.profile!r}")
        self._start = perf_counter()
        self._checks: list[dict] = []
        self._figures: list[str] = []

    @cached_property
    def has_defaults(self) -> bool:
        """Whether all parameters except ``PROFILE`` have the values of the last saved run."""
        file = paths.committed_figures_dir() / "results" / f"{self.name}.json"
        if not file.is_file():
            return True
        saved = json.loads(file.read_text(encoding="utf-8")).get("parameters", {})
        return all(self.parameters.get(key) == value for key, value in saved.items() if key != "PROFILE")

    def task(self, max_queries: int | None = None) -> tuple[Protocol, ImageSet]:
        """The profile's default task, a protocol and its images: sample-distractors or imagenette-val-train.

        If the data set has more images than the protocol, a line says how many are left out.

        max_queries : keep at least this number of queries and fewer than twice as many, see `builders.fewer_queries`.
        """
        if self.profile == "sample":
            frozen, whole = protocol_files.frozen("sample-distractors"), samples.with_distractors()
        else:
            frozen, whole = protocol_files.frozen("imagenette-val-train"), imagenet.imagenette()
        protocol, images = frozen.bind(whole)
        if len(images) < len(whole):
            print(f"{protocol.name} uses {len(images):,} of the {len(whole):,} images; the others are left out")
        if max_queries:
            protocol = builders.fewer_queries(protocol, max_queries)
        return protocol, images

    def show(self, figure: Figure, name: str, alt: str = "", dpi: int = 150, save: bool = True) -> None:
        """Show a figure; with ``save`` also write it to ``figures/<notebook>_<name>``, as PNG or JPEG.

        Figures of the full profile are not written, because the licenses do not allow copies of their images.

        alt : a description of the figure for readers who do not see it.
        """
        image, suffix = _encoded(figure, dpi)
        path = paths.figures_dir() / f"{self.name}_{name}{suffix}"
        if save and self.profile == "sample":
            path.parent.mkdir(parents=True, exist_ok=True)
            for former in (".png", ".jpg"):
                path.with_suffix(former).unlink(missing_ok=True)
            path.write_bytes(image)
            self._figures.append(path.name)
        width = round(figure.get_figwidth() * _SCREEN_DPI)
        display(DisplayedImage(image, width=width, alt=alt or name.replace("_", " ")))

    def expect(self, what: str, measured: float, expected: float, tolerance: float, when: bool = True) -> None:
        """Print an expected number next to the measured one, and check that they differ by at most ``tolerance``.

        With other parameters than the default ones, only the measured number is printed. The tolerance is at least
        `OFFICIAL_TOLERANCE` if the full profile uses official archives, not a mirror.

        when : whether the expectation applies to this run's data and weights.

        Raises AssertionError: the difference is larger, so the notebook's text is wrong for this run. Only in CI;
        elsewhere a note is printed.
        """
        if not (when and self.has_defaults):
            print(f"{what}: {measured:.3f} (no expectation for this data or these parameters)")
            return
        if self.profile == "full" and paths.mirror_dir() is None:
            tolerance = max(tolerance, OFFICIAL_TOLERANCE)
        holds = abs(measured - expected) <= tolerance
        self._checks.append({"what": what, "measured": measured, "expected": expected, "tolerance": tolerance})
        print(f"{what}: {measured:.3f}, expected {expected:.3f} ± {tolerance:g} {'✓' if holds else '✗'}")
        if holds:
            return
        message = f"{what} is {measured:.4f}, but the text says {expected} ± {tolerance}"
        if paths.checks_numbers():
            raise AssertionError(message)
        print(f"note: {message}. Another processor or version can be the reason.")

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
        path = paths.figures_dir() / "results" / f"{self.name}.json"
        tensorflow = extras.version("tensorflow-cpu") or extras.version("tensorflow") or "none"
        content = {
            "notebook": self.name,
            "profile": self.profile,
            "seed": self.seed,
            "parameters": self.parameters,
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

    Raises WeightsUnavailable: the trained weights are not available, and ``fallback`` is None.
    """
    try:
        return open_extractor(name)
    except WeightsUnavailable as error:
        if fallback is None:
            raise
        display(box(f"{error}\n\nThis run uses {fallback}; its numbers differ from those in the text.", "caution"))
        return open_extractor(fallback)


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, text, None, or a list of them, as a parameter is."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _encoded(figure: Figure, dpi: int) -> tuple[bytes, str]:
    """The figure as PNG, or as JPEG if that has less than half the bytes, as for photographs; and the file suffix."""
    png, jpeg = BytesIO(), BytesIO()
    figure.savefig(png, format="png", dpi=dpi)
    image = Image.open(png).convert("RGB")
    image.save(jpeg, "JPEG", quality=85, optimize=True)
    if 2 * jpeg.tell() < png.tell():
        return jpeg.getvalue(), ".jpg"
    smaller = BytesIO()
    image.save(smaller, "PNG", optimize=True)
    return smaller.getvalue(), ".png"
