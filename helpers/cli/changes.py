"""Report changes of engines, for the commands that change them."""

from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli.common import log, pluralize, was

if TYPE_CHECKING:
    from helpers.features.regions import RegionSource
    from helpers.search.engine import Engine
    from helpers.search.identity import Additions
    from helpers.search.persist.live import LiveEngine


def describe_additions(added: "Additions") -> str:
    """What became of images that were added, such as "2 images added (ids 19 to 20), 1 already indexed"."""
    from helpers.search.identity import Outcome

    count = added.count
    if count(Outcome.UNCHANGED) == len(added.outcomes):
        one = len(added.outcomes) == 1
        return "the image was already indexed" if one else f"all {len(added.outcomes):,} images were already indexed"
    given = []
    if new := count(Outcome.NEW, Outcome.COPY):
        given.append(f"{pluralize(new, 'image')} added{_copies(count(Outcome.COPY), new)}")
    if changed := count(Outcome.CHANGED):
        given.append(f"{pluralize(changed, 'image')} changed and {was(changed)} replaced")
    if reclassified := count(Outcome.RECLASSIFIED):
        given.append(f"{pluralize(reclassified, 'image')} moved to another class")
    if given:
        ids = added.new_ids.tolist()
        given[-1] += f" (id {ids[0]})" if len(ids) == 1 else f" (ids {min(ids)} to {max(ids)})"
    if unchanged := count(Outcome.UNCHANGED):
        given.append(f"{unchanged:,} already indexed")
    if damaged := count(Outcome.DAMAGED):
        given.append(f"{damaged:,} no longer readable and {was(damaged)} removed")
    if unreadable := count(Outcome.UNREADABLE):
        given.append(f"{unreadable:,} not readable")
    return ", ".join(given)


def _copies(copies: int, added: int) -> str:
    if not copies:
        return ""
    if copies == added:
        return ", a copy of an indexed image" if added == 1 else ", all copies of indexed images"
    return f", {copies:,} of them {'a copy of an indexed image' if copies == 1 else 'copies of indexed images'}"


def wait_for_compaction(live: "LiveEngine") -> None:
    """Wait until a long log is written into the index, if this has started."""
    try:
        changes = live.wait_for_compaction()
    except OSError as error:
        # The images were added or removed all the same, and the next command compacts the index.
        log(f"note: the index could not be compacted: {error}")
        return
    if changes:
        log(f"note: {pluralize(changes, 'change')} written from the log into the index")


def classify_new(folder: Path, engine: "Engine") -> None:
    """Compute the class scores of the images that have none, if the engine has scores."""
    from helpers.search.word_index import NoClassScores, classify, matching_classifier, stored_classifier

    try:
        stored = stored_classifier(folder)
    except NoClassScores:
        return
    try:
        classifier = matching_classifier(folder, stored)
    except NoClassScores as error:
        log(f"note: {error}")
        return
    done: list[int] = []
    skipped = classify(folder, engine, classifier, done.append)
    if done:
        log(f"note: class scores of {pluralize(sum(done) - skipped, 'image')} computed")


def find_regions(folder: Path, engine: "Engine", source: "RegionSource", files: tuple[str, str] | None = None) -> None:
    """Find and store the regions of an engine's images.

    files : of the source's detector, if it is the user's own detector: the network and its labels.
    """
    from tqdm.auto import tqdm

    from helpers.search.region_index import update_regions

    with tqdm(unit="image", disable=None) as bar:
        done = update_regions(folder, engine, source, bar.update, files=files)
    if done.skipped:
        log(f"note: {pluralize(done.skipped, 'image')} cannot be read and got no regions")
    if done.added or done.removed:
        removed = f", {done.removed:,} removed" if done.removed else ""
        log(f"note: {pluralize(done.added, 'region')} by {source.name} added{removed}")


def find_new_regions(folder: Path, engine: "Engine") -> None:
    """Find the regions of the images that have none, if the engine has regions."""
    from helpers.search.region_index import NoRegions, forget_regions, open_source, stored_source

    try:
        stored = stored_source(folder)
    except NoRegions:
        return
    if engine.index.metric != "cosine":
        forget_regions(folder)
        log(
            f"note: the engine no longer has regions, because {engine.index.spec} has {engine.index.metric} distances, "
            "and regions need cosines"
        )
        return
    try:
        source = open_source(folder)
    except NoRegions as error:
        log(f"note: {error}")
        return
    files = (stored.detector, stored.labels) if stored.detector and stored.labels else None
    find_regions(folder, engine, source, files)
