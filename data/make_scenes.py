"""Create ``data/scenes/``: cut-out photographs on real photographs, with known boxes and masks (GPL-3).

    apt-get download tuxpaint-stamps-default mate-backgrounds opencv-doc plasma-workspace-wallpapers
    python data/make_scenes.py tuxpaint-stamps-default_*.deb mate-backgrounds_*.deb opencv-doc_*.deb \
        plasma-workspace-wallpapers_*.deb                           # or the folders that they were unpacked to

The cut-outs are the photographs of the sample (``sample_selection.csv``), with the transparency of their stamps. The
backgrounds are those of ``scene_backgrounds.csv``, which show no object of the sample's classes. The same packages and
the same versions of NumPy and Pillow give the same bytes. ``LICENSE`` and ``ORIGINS.md`` are written by hand and are
not changed.
"""

import csv
import hashlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from debian_package import arguments, unpacked
from make_sample import STAMPS, selection
from PIL import Image, ImageEnhance, ImageFilter

DATA = Path(__file__).resolve().parent
SCENES = DATA / "scenes"
BACKGROUNDS = DATA / "scene_backgrounds.csv"
#: Package → its version, and the SHA-256 of the files that are read from it, one after the other.
PACKAGES = {
    "tuxpaint-stamps-default": ("2022.06.04-1", "2be736234c0ae6ebaedc446f5b91787234e3e1ca9badc3423255b5ad80285772"),
    "mate-backgrounds": ("1.26.0-1", "f41faf52ad393663c8ef0f266ba2017f42814fa767ee0ed3d1040fe0a1deb5d3"),
    "opencv-doc": ("4.6.0+dfsg-12", "1b9958c373765813d8f5b2e44477db2f14d2d91425f252290a40dac6262099dc"),
    "plasma-workspace-wallpapers": ("4:5.27.5-2", "ca6706b63c8ee13ea341e435e9142252ffcce8529c64af458c891c6b888942b9"),
}
SEED = 24
QUALITY = 82
#: Width and height of a scene; each is drawn with the same probability.
SIZES = ((320, 240), (320, 240), (240, 320))
#: Number of objects → number of scenes, and the largest area of a box as a share of the image.
COUNTS = {1: (75, 0.6), 2: (105, 0.45), 3: (60, 0.35), 4: (36, 0.3), 5: (24, 0.25)}
SMALLEST_AREA = 0.02
#: The smallest share of an object's pixels that other objects leave visible.
SMALLEST_VISIBLE = 0.6
#: Small stamps are enlarged at most so many times.
LARGEST_SCALE = 2.0
#: Degrees of rotation, and factors of brightness and saturation.
ROTATION, TONE = 12, (0.8, 1.2)
#: Classes with members that are mirrored; a mirrored coin or truck would have mirrored letters.
MIRRORED = ("birds", "fish", "flowers", "fruit", "mammals", "vegetables")
#: Alpha from which a pixel belongs to an object.
OPAQUE = 128
#: Draws of a scene before its largest area is reduced by a tenth.
DRAWS = 100
#: Queries of two objects: their number, the smallest area of each, and the largest number in one scene.
PAIRS, PAIR_AREA, PAIRS_PER_SCENE = 100, 0.1, 2


@dataclass(frozen=True)
class CutOut:
    """A photograph of the sample: class, key in the sample, and RGBA image without transparent margins."""

    class_name: str
    key: str
    image: Image.Image


@dataclass(frozen=True)
class Placed:
    """An object of a scene: cut-out, box of its visible pixels (x, y, width, height), visible share, area share."""

    cut_out: CutOut
    box: tuple[int, int, int, int]
    visible_share: float
    area_share: float


def main(packages: Sequence[Path]) -> None:
    with ExitStack() as stack:
        make(*(stack.enter_context(unpacked(package)) for package in packages))


def make(*roots: Path) -> None:
    """Write the scenes, their tables and the sums from unpacked packages, in the order of `PACKAGES`."""
    root_of = dict(zip(PACKAGES, roots, strict=True))
    with BACKGROUNDS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    photos = [row for row in selection() if row["kind"] == "photos"]
    check(root_of, [("tuxpaint-stamps-default", STAMPS / row["stamp"]) for row in photos]
          + [(row["package"], Path(row["file"])) for row in rows])  # fmt: skip
    cut_outs = [cut_out(root_of["tuxpaint-stamps-default"] / STAMPS / row["stamp"], row) for row in photos]
    backgrounds = [(row["name"], background(root_of[row["package"]] / row["file"])) for row in rows]
    for folder in ("images", "masks"):
        shutil.rmtree(SCENES / folder, ignore_errors=True)
        (SCENES / folder).mkdir(parents=True)
    objects: list[tuple[str, str, list[Placed]]] = []
    for number, chosen in enumerate(drawn(cut_outs)):
        rng = np.random.default_rng((SEED, number))
        # Every background is used equally often.
        name, photo = backgrounds[number % len(backgrounds)]
        scene, placed, numbered = compose(photo, chosen, rng)
        key = f"images/{number:03d}.jpg"
        scene.save(SCENES / key, quality=QUALITY, optimize=True)
        numbered.save(SCENES / f"masks/{number:03d}.png", optimize=True)
        objects.append((key, name, placed))
    write_tables(objects)
    print(len(objects), "scenes,", sum(path.stat().st_size for path in SCENES.rglob("*.jpg")) // 1000, "kB")


def check(root_of: dict[str, Path], files: Sequence[tuple[str, Path]]) -> None:
    """End the script unless all files are those of the pinned versions. Checked before the old scenes are deleted."""
    for package, (version, expected) in PACKAGES.items():
        digest = hashlib.sha256()
        for file in sorted({file for name, file in files if name == package}):
            if not (root_of[package] / file).is_file():
                sys.exit(f"{file} is not in {root_of[package]}. Is this {package} {version}? Nothing was changed.")
            digest.update((root_of[package] / file).read_bytes())
        if digest.hexdigest() != expected:
            sys.exit(
                f"The files of {root_of[package]} are not those of {package} {version}: their SHA-256 is "
                f"{digest.hexdigest()}. Nothing was changed."
            )


def cut_out(stamp: Path, row: dict[str, str]) -> CutOut:
    """The stamp of a row of the sample's selection."""
    with Image.open(stamp) as image:
        image = image.convert("RGBA")
    return CutOut(row["class"], f"photos/{row['class']}/{row['name']}.jpg", without_margins(image))


def without_margins(image: Image.Image) -> Image.Image:
    return image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha >= OPAQUE)).getbbox())


def background(file: Path) -> Image.Image:
    """The photograph as RGB, reduced so that its short side has at most 480 pixels."""
    with Image.open(file) as image:
        image = image.convert("RGB")
    factor = min(1, 480 / min(image.size))
    return image.resize([round(side * factor) for side in image.size], Image.Resampling.LANCZOS)


def drawn(cut_outs: Sequence[CutOut]) -> Iterator[list[CutOut]]:
    """The cut-outs of each scene. The photographs of a class are used in turn, in a new random order each time.

    The probability of a class is proportional to the square root of its number of photographs.
    """
    rng = np.random.default_rng(SEED)
    by_class: dict[str, list[CutOut]] = {}
    for each in cut_outs:
        by_class.setdefault(each.class_name, []).append(each)
    names = sorted(by_class)
    share = np.sqrt([len(by_class[name]) for name in names])
    decks: dict[str, list[CutOut]] = {name: [] for name in names}
    counts = [count for count, (scenes, _) in COUNTS.items() for _ in range(scenes)]
    for count in rng.permutation(counts):
        chosen: list[CutOut] = []
        while len(chosen) < count:
            name = names[rng.choice(len(names), p=share / share.sum())]
            if all(each in chosen for each in decks[name]):
                decks[name] += [by_class[name][i] for i in rng.permutation(len(by_class[name]))]
            # The same photograph is not pasted twice into a scene.
            free = next((each for each in decks[name] if each not in chosen), None)
            if free is not None:
                decks[name].remove(free)
                chosen.append(free)
        yield chosen


def compose(
    photo: Image.Image, cut_outs: Sequence[CutOut], rng: np.random.Generator
) -> tuple[Image.Image, list[Placed], Image.Image]:
    """A scene with a random part of the background and the cut-outs at random places, the larger ones behind.

    Returns the scene, its objects, and a gray image of the same size with the number of the visible object at each
    pixel: 1 for the first one, 0 for the background.
    """
    size = SIZES[rng.integers(len(SIZES))]
    scene = part(photo, size, rng)
    largest = COUNTS[len(cut_outs)][1]
    while True:
        for _ in range(DRAWS):
            layers = [(each, layer(each, size, largest, rng)) for each in cut_outs]
            layers.sort(key=lambda pair: -int(np.count_nonzero(mask(pair[1]))))
            placed = visible([each for each, _ in layers], [mask(image) for _, image in layers])
            if all(
                each.visible_share >= SMALLEST_VISIBLE and SMALLEST_AREA <= each.area_share <= largest
                for each in placed
            ):
                numbered = np.zeros((size[1], size[0]), np.uint8)
                for number, (_, image) in enumerate(layers, 1):
                    scene.paste(image, mask=image.getchannel("A"))
                    numbered[mask(image)] = number
                return scene, placed, Image.fromarray(numbered)
        largest *= 0.9


def part(photo: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A random part of a photograph, of 60 to 100 % of the largest possible side, reduced to ``size``, or mirrored."""
    factor = min(photo.width / size[0], photo.height / size[1]) * rng.uniform(0.6, 1)
    width, height = (side * factor for side in size)
    left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
    box = (left, top, left + width, top + height)
    scene = photo.resize(size, Image.Resampling.LANCZOS, box=box)
    return scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else scene


def layer(each: CutOut, size: tuple[int, int], largest: float, rng: np.random.Generator) -> Image.Image:
    """RGBA of the scene's size: the cut-out, changed at random, at a random place; transparent elsewhere."""
    image = each.image
    if each.class_name in MIRRORED and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    degrees, tones = rng.uniform(-ROTATION, ROTATION), rng.uniform(*TONE, 2)
    turned = without_margins(image.rotate(degrees, Image.Resampling.BICUBIC, expand=True))
    area = rng.uniform(SMALLEST_AREA**0.5, largest**0.5) ** 2 * size[0] * size[1]
    fitting = min((size[0] - 2) / turned.width, (size[1] - 2) / turned.height)
    scale = min((area / (turned.width * turned.height)) ** 0.5, fitting, LARGEST_SCALE)
    small = turned.resize([max(1, round(side * scale)) for side in turned.size], Image.Resampling.LANCZOS)
    alpha = feathered(small.getchannel("A"))
    colors = ImageEnhance.Brightness(small.convert("RGB")).enhance(tones[0])
    colors = ImageEnhance.Color(colors).enhance(tones[1])
    colors.putalpha(alpha)
    full = Image.new("RGBA", size, (0, 0, 0, 0))
    full.paste(colors, [int(rng.integers(0, side - own + 1)) for side, own in zip(size, colors.size, strict=True)])
    return full


def feathered(alpha: Image.Image) -> Image.Image:
    """Alpha without the outermost pixels, which have the color of the stamp's old background, and with soft edges."""
    return alpha.filter(ImageFilter.GaussianBlur(0.8)).point(lambda value: min(255, max(0, round((value - 96) * 1.6))))


def mask(image: Image.Image) -> np.ndarray:
    """bool (h, w): the pixels of an object."""
    return np.asarray(image.getchannel("A")) >= OPAQUE


def visible(cut_outs: Sequence[CutOut], masks: Sequence[np.ndarray]) -> list[Placed]:
    """The objects with these masks, of which each hides those before it."""
    placed = []
    for i, (each, own) in enumerate(zip(cut_outs, masks, strict=True)):
        shown = own & ~np.any(masks[i + 1 :], axis=0) if i + 1 < len(masks) else own
        rows, columns = np.nonzero(shown.any(axis=1))[0], np.nonzero(shown.any(axis=0))[0]
        if not len(rows):
            placed.append(Placed(each, (0, 0, 0, 0), 0.0, 0.0))
            continue
        x, y, right, bottom = (int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        share = np.count_nonzero(shown) / np.count_nonzero(own)
        placed.append(Placed(each, (x, y, right - x, bottom - y), share, (right - x) * (bottom - y) / own.size))
    return placed


def write_tables(objects: Sequence[tuple[str, str, list[Placed]]]) -> None:
    """Write the objects, the queries of two objects, and the sums of all files that the script writes."""
    rows = [
        (key, name, each.cut_out.class_name, each.cut_out.key, *each.box, f"{each.visible_share:.4f}",
         f"{each.area_share:.4f}")
        for key, name, placed in objects
        for each in placed
    ]  # fmt: skip
    header = ("image", "background", "class", "photo", "x", "y", "width", "height", "visible_share", "area_share")
    write_csv(SCENES / "objects.csv", header, rows)
    write_csv(SCENES / "pairs.csv", ("image", "first", "second"), pairs(objects))
    images = [path for folder in ("images", "masks") for path in sorted((SCENES / folder).iterdir())]
    files = [*images, SCENES / "objects.csv", SCENES / "pairs.csv"]
    sums = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(SCENES).as_posix()}\n" for file in files
    ]
    (SCENES / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def pairs(objects: Sequence[tuple[str, str, list[Placed]]]) -> list[tuple[str, str, str]]:
    """`PAIRS` random pairs of photographs of two classes that occur together in one scene only, both large there."""
    together = Counter(
        frozenset(pair) for _, _, placed in objects for pair in combinations([each.cut_out.key for each in placed], 2)
    )
    found = []
    for key, _, placed in objects:
        large = [each.cut_out for each in placed if each.area_share >= PAIR_AREA]
        found += [
            (key, *sorted((one.key, other.key)))
            for one, other in combinations(large, 2)
            if one.class_name != other.class_name and together[frozenset((one.key, other.key))] == 1
        ]
    chosen: list[tuple[str, str, str]] = []
    for i in np.random.default_rng(SEED).permutation(len(found)):
        if sum(key == found[i][0] for key, _, _ in chosen) < PAIRS_PER_SCENE:
            chosen.append(found[i])
    if len(chosen) < PAIRS:
        sys.exit(f"There are only {len(chosen)} pairs of large objects.")
    return sorted(chosen[:PAIRS])


def write_csv(file: Path, header: Sequence[str], rows: Sequence[tuple]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main(arguments(__doc__, len(PACKAGES)))
