"""Folders of images: which files are read, and what is left out and why."""

import os
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from helpers.images import formats
from helpers.images.imageset import EmptyImageSet, ImageSet, numbered
from helpers.text import pluralize

#: Kinds of files that `FolderScan.summary` names; it counts the others together.
_NAMED = 8


class SkippedFilesWarning(UserWarning):
    """Files or folders that may be images were left out; the message counts them by kind."""


@dataclass(frozen=True, order=True)
class SkippedKind:
    """A kind of file or folder that a scan leaves out.

    Parameters
    ----------
    minor : whether it is surely no image that the user wants, such as a text or a hidden file.
    one, many : its name after the numbers 1 and 2.
    why : the reason or the remedy; empty if the name says it.
    files : whether the entries are files, not folders.
    """

    minor: bool
    one: str
    many: str
    why: str = ""
    files: bool = True


def _of_suffix(suffix: str, why: str = "", minor: bool = False) -> SkippedKind:
    return SkippedKind(minor, suffix, suffix, why)


HIDDEN_FILE = SkippedKind(True, "hidden file", "hidden files")
HIDDEN_FOLDER = SkippedKind(True, "hidden folder", "hidden folders", files=False)
LINKED_FOLDER = SkippedKind(False, "linked folder", "linked folders", "use --follow-links", files=False)
REPEATED_FOLDER = SkippedKind(
    True, "linked folder", "linked folders", "their files are read through another path", files=False
)
UNREADABLE_FOLDER = SkippedKind(False, "unreadable folder", "unreadable folders", files=False)
UNREADABLE_FILE = SkippedKind(False, "unreadable file", "unreadable files")
BROKEN_LINK = SkippedKind(False, "broken link", "broken links")
SPECIAL_FILE = SkippedKind(True, "pipe, socket or device", "pipes, sockets or devices")
NO_SUFFIX = SkippedKind(True, "file without suffix", "files without suffix", "not images")


@dataclass(frozen=True)
class FolderScan:
    """What a folder contains.

    Parameters
    ----------
    folder : the folder that was scanned.
    names : paths of the images relative to the folder, with forward slashes, sorted.
    skipped : the number of files and folders of each kind that were left out. Neither the files in a folder that was
        not entered nor those in the folder ``without`` are counted.
    """

    folder: Path
    names: tuple[str, ...]
    skipped: dict[SkippedKind, int]

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """The paths of the images, in the order of their names."""
        return tuple(self.folder / name for name in self.names)

    @property
    def files(self) -> int:
        """The number of files: images and those that were left out."""
        return len(self.names) + sum(count for kind, count in self.skipped.items() if kind.files)

    @property
    def is_complete(self) -> bool:
        """Whether nothing was left out that may be an image."""
        return all(kind.minor for kind in self.skipped)

    def summary(self) -> str:
        """One line, such as "12 files: 9 images; skipped: 2 .dng (raw file …), 1 unreadable folder"."""
        kinds = sorted(self.skipped.items(), key=lambda item: (item[0].minor, -item[1], item[0]))
        parts = [
            f"{count:,} {kind.one if count == 1 else kind.many}" + (f" ({kind.why})" if kind.why else "")
            for kind, count in kinds[:_NAMED]
        ]
        if rest := kinds[_NAMED:]:
            parts.append(f"{sum(count for _, count in rest):,} of {len(rest)} other kinds")
        counts = f"{pluralize(self.files, 'file')}: {pluralize(len(self.names), 'image')}"
        return counts + (f"; skipped: {', '.join(parts)}" if parts else "")

    def image_set(self, name: str | None = None) -> ImageSet:
        """The images as a set. Each subfolder is a class; images outside of subfolders have no class.

        Raises
        ------
        EmptyImageSet : there are no images.
        """
        if not self.names:
            skipped = f" ({self.summary()})" if self.skipped else ""
            raise EmptyImageSet(
                f"{self.folder} contains no images{skipped}. Expected files such as .jpg, .png or .webp, preferably in "
                "one subfolder per class."
            )
        class_names, labels = numbered([name.partition("/")[0] if "/" in name else "" for name in self.names])
        return ImageSet(name or self.folder.name, self.images, labels, class_names, root=self.folder)


def scan_folder(folder: str | Path, follow_links: bool = False, without: Path | None = None) -> FolderScan:
    """Find the images below a folder, and count what is left out.

    Files are images by their suffix (`helpers.images.formats.suffix_kinds`). Files without a known suffix are images
    if their first bytes are those of an image. Hidden files and folders are skipped. Linked files are read.

    Parameters
    ----------
    follow_links : enter linked folders, too. A folder is entered only once, even if links lead to it again or form a
        loop.
    without : a folder that is left out, such as an engine.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError : the folder does not exist, is a file, or is not readable.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist. Give the folder that contains your images.")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file. Give the folder that contains your images.")
    scanner = _Scanner(folder, follow_links, without)
    scanner.run()
    return FolderScan(folder, tuple(sorted(scanner.names)), dict(scanner.skipped))


def image_files(folder: str | Path) -> list[Path]:
    """All images below a folder, sorted, as `scan_folder` finds them; for the errors see there."""
    return list(scan_folder(folder).images)


def from_folder(folder: str | Path, name: str | None = None, follow_links: bool = False) -> ImageSet:
    """A set of your own images. Each subfolder is a class; images outside of subfolders have no class.

    Without subfolders the set has no classes: it can be searched, but not scored. One `SkippedFilesWarning` counts the
    files and folders that were left out, if some of them may be images.

    follow_links : enter linked folders, too, each once.

    Raises
    ------
    EmptyImageSet : the folder contains no images.
    FileNotFoundError, NotADirectoryError, PermissionError : see `scan_folder`.
    """
    scan = scan_folder(Path(folder).resolve(), follow_links)
    images = scan.image_set(name)
    if not scan.is_complete:
        warnings.warn(f"{scan.folder}: {scan.summary()}", SkippedFilesWarning, stacklevel=2)
    return images


class _Scanner:
    """The state of one scan. Names are relative to the folder, with forward slashes."""

    def __init__(self, folder: Path, follow_links: bool, without: Path | None):
        self.folder, self.follow_links = os.fspath(folder), follow_links
        left_out = without if without is not None and without.is_dir() else None
        self.without = None if left_out is None else left_out.stat()
        self._is_left_out = left_out is not None and folder.resolve().is_relative_to(left_out.resolve())
        self.names: list[str] = []
        self.skipped: Counter[SkippedKind] = Counter()
        self._links: list[str] = []
        self._entered: set[tuple[int, int]] = set()

    def run(self) -> None:
        folders = [] if self._is_left_out else [""]
        while folders or self._links:
            if not folders:
                # Real folders come first, so that the names of their images do not depend on links to them.
                self._links.sort(reverse=True)
                folders.append(self._links.pop())
            name = folders.pop()
            path = os.path.join(self.folder, name) if name else self.folder  # noqa: PTH118 (Path is slow here)
            try:
                if not self._is_wanted(path):
                    continue
                with os.scandir(path) as entries:
                    listed = list(entries)
            except OSError:
                if not name:
                    raise
                self.skipped[UNREADABLE_FOLDER] += 1
                continue
            prefix = f"{name}/" if name else ""
            folders += [prefix + entry.name for entry in listed if self._is_folder(entry, prefix)]

    def _is_wanted(self, path: str) -> bool:
        """Whether to enter a folder: it is not the one to leave out, and was not entered by another path."""
        if self.without is None and not self.follow_links:
            return True
        status = Path(path).stat()
        if self.without is not None and os.path.samestat(self.without, status):
            return False
        identity = (status.st_dev, status.st_ino)
        if self.follow_links and identity in self._entered:
            self.skipped[REPEATED_FOLDER] += 1
            return False
        self._entered.add(identity)
        return True

    def _is_folder(self, entry: os.DirEntry[str], prefix: str) -> bool:
        """Whether to enter an entry now. Others are noted as an image, as a linked folder or as skipped."""
        try:
            folder = entry.is_dir()
            file = not folder and entry.is_file()
        except OSError:  # a loop of links
            folder = file = False
        kind: SkippedKind | None
        if entry.name.startswith("."):
            kind = HIDDEN_FOLDER if folder else HIDDEN_FILE
        elif folder and not entry.is_symlink():
            return True
        elif folder and self.follow_links:
            self._links.append(prefix + entry.name)
            return False
        elif folder:
            kind = LINKED_FOLDER
        elif file:
            kind = _kind(entry.path, entry.name)
        else:
            # Unlike Path.exists, this accepts a link into a folder that is not readable.
            kind = SPECIAL_FILE if os.path.exists(entry.path) else BROKEN_LINK  # noqa: PTH110
        if kind is None:
            self.names.append(prefix + entry.name)
        else:
            self.skipped[kind] += 1
        return False


def _kind(path: str, name: str) -> SkippedKind | None:
    """None for an image, else why a regular file is left out."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 (Path is slow here)
    match formats.suffix_kinds().get(suffix):
        case "image":
            return None
        case "heif":
            return _HEIC
        case "raw":
            return _of_suffix(suffix, "raw file of a camera: export it as JPEG")
        case "other image":
            return _of_suffix(suffix, "format not read: convert it to PNG or JPEG")
        case "other":
            return _of_suffix(suffix, minor=True)
    try:
        if formats.is_image(path):
            return None
    except OSError:
        return UNREADABLE_FILE
    return NO_SUFFIX if suffix in ("", ".") else _of_suffix(suffix, minor=True)


_HEIC = _of_suffix(".heic", "install the `heif` extra: pip install 'lookalike[heif]'")
