"""Create ``data/sample/`` from Debian's package ``tuxpaint-stamps-default`` (GPL-2).

    apt-get download tuxpaint-stamps-default
    python data/make_sample.py tuxpaint-stamps-default_*.deb      # or the folder that it was unpacked to

``data/sample_selection.csv`` lists the stamps, which were selected by hand: photographs of ten classes, drawings of the
same classes, and distractors. Mirror images of other stamps and doubtful members of a class were left out. Images are
put on white and reduced to at most 256 pixels. The same package and the same version of Pillow give the same bytes.
``LICENSE`` and ``ORIGINS.md`` are written by hand and are not changed.
"""

import csv
import shutil
import sys
from pathlib import Path

from debian_package import argument, unpacked
from PIL import Image

DATA = Path(__file__).resolve().parent
SAMPLE = DATA / "sample"
SELECTION = DATA / "sample_selection.csv"
STAMPS = Path("usr/share/tuxpaint/stamps")
LONGEST_SIDE = 256
QUALITY = 88


def main(package: Path) -> None:
    with unpacked(package) as root:
        make(root)


def make(root: Path) -> None:
    """Write the images and the table of captions and origins from an unpacked package."""
    chosen = selection()
    missing = [row["stamp"] for row in chosen if not (root / STAMPS / row["stamp"]).is_file()]
    # Checked before the old sample is deleted.
    if missing:
        sys.exit(
            f"{len(missing)} of {len(chosen)} stamps are not in {root / STAMPS}, the first is {missing[0]}. "
            "Is this tuxpaint-stamps-default 2022.06.04-1? Nothing was changed."
        )
    for kind in ("photos", "drawings", "distractors"):
        shutil.rmtree(SAMPLE / kind, ignore_errors=True)
    rows = []
    for row in chosen:
        stamp = root / STAMPS / row["stamp"]
        key = Path(row["kind"], row["class"], row["name"] + ".jpg")
        (SAMPLE / key).parent.mkdir(parents=True, exist_ok=True)
        on_white(stamp).save(SAMPLE / key, quality=QUALITY, optimize=True)
        rows.append((key.as_posix(), caption(stamp), f"/{STAMPS / row['stamp']}"))
    with (SAMPLE / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("key", "caption", "origin"))
        writer.writerows(sorted(rows))
    print(len(rows), "images,", sum(path.stat().st_size for path in SAMPLE.rglob("*.jpg")) // 1000, "kB")


def selection() -> list[dict[str, str]]:
    """The selected stamps: path in the stamps' folder, kind, class (empty for a distractor) and file name."""
    with SELECTION.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def on_white(stamp: Path) -> Image.Image:
    """The stamp as RGB on white, its longest side at most `LONGEST_SIDE`."""
    with Image.open(stamp) as image:
        image = image.convert("RGBA")
        page = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    page.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return page


def caption(stamp: Path) -> str:
    """The first line of the stamp's English description, or its name if there is none."""
    text = stamp.with_suffix(".txt")
    if text.is_file():
        first = text.read_text(encoding="utf-8", errors="replace").splitlines()[:1]
        if first and first[0].strip():
            return first[0].strip()
    return stamp.stem.replace("_", " ").replace("-", " ").capitalize() + "."


if __name__ == "__main__":
    main(argument(__doc__))
