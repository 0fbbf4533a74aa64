"""`lookalike extractors` and `indexes`: what there is, in one sentence each, and what is missing here."""

import argparse

from helpers import extras
from helpers.cli.common import OK, add_command, print_json, shown

#: Name → what it is. Networks are told from their table.
EXTRACTORS = {
    "dlib-face": "dlib's face network: for people, the best there is here",
    "pixels": "16 × 16 gray pixels: a baseline",
    "gray-histogram": "how often each gray occurs",
    "rgb-histogram": "how often each color occurs, in RGB",
    "hsv-histogram": "how often each color occurs, in HSV; quick, and needs no network",
    "lab-histogram": "how often each color occurs, in Lab",
    "hog": "histograms of gradients: shape, for images of one layout",
    "sift-bow": "visual words, counted",
    "sift-soft": "visual words, counted softly",
    "sift-vlad": "visual words as VLAD",
    "sift-fisher": "visual words as a Fisher vector: the best of what is made by hand",
}
#: Ending of a network's name → how its last map becomes a vector.
POOLED = {
    "average": "{}'s last map, averaged",
    "max": "{}'s last map, of each channel the greatest",
    "gem": "{}'s last map by generalized mean: for photographs with something behind what they show",
    "rmac": "{}'s last map by regions",
}

#: Name → the extra that it needs, or None, and what it is.
INDEXES = {
    "exact:cosine": (None, "compares with everything, by cosine; also exact:euclidean and exact:manhattan"),
    "sklearn:cosine": (None, "scikit-learn's brute force, for comparison"),
    "faiss:flat": (None, "compares with everything"),
    "faiss:hnsw": (None, "a graph of near neighbors: the quickest from about 100,000 images on"),
    "faiss:ivf": (None, "lists by k-means, of which a search looks into some"),
    "faiss:pq": (None, "codes of a few bytes, and the best compared again: little memory"),
    "faiss:opq": (None, "lists of such codes: a million images in little memory"),
    "usearch:cosine": (None, "a graph with numbers of 32, 16 or 8 bits"),
    "annoy:cosine": ("annoy", "a forest of random planes that is made once; also annoy:manhattan"),
    "milvus:my.db": ("milvus", "Milvus in a file, without a server"),
    "milvus://host:19530/name": ("milvus", "a Milvus server, which has to be running (compose.yaml starts one)"),
    "elasticsearch://host:9200/name": (
        "elasticsearch",
        "an Elasticsearch server, which has to be running (compose.yaml starts one)",
    ),
}


def register(commands) -> None:
    """Add this family's commands to a parser's."""
    for name, run, summary, examples in (
        ("extractors", _extractors, "List what turns images into vectors.", "lookalike extractors"),
        ("indexes", _indexes, "List what finds the nearest vectors.", "lookalike indexes"),
    ):
        command = add_command(
            commands,
            name,
            run,
            summary,
            f"{examples}\n{examples} --json",
            'Each with one sentence, and what is missing here and helps. --json prints a list of {"name", "sentence", '
            '"available", "remedy"}.',
        )
        command.add_argument("--json", action="store_true", help="print JSON")


def _extractors(options: argparse.Namespace) -> int:
    from helpers.features.registry import names

    _print([_extractor(name) for name in sorted(names(), key=_place)], options)
    if not options.json:
        print("several as one: hog+hsv-histogram")
    return OK


def _place(name: str) -> tuple:
    """Networks first, each followed by what is made of it; then faces, then what is made by hand."""
    network = name.partition("-")[0]
    if name in EXTRACTORS:
        return 1, list(EXTRACTORS).index(name), 0, ""
    # Of one length for each number of axes: "pcaw16" before "pcaw128".
    return 0, network != "resnet50", network, len(name), name


def _extractor(name: str) -> dict:
    if name in EXTRACTORS:
        missing = _missing_for(name)
        return _entry(name, EXTRACTORS[name], missing)
    from helpers.networks import specs, weights

    network, _, ending = name.partition("-")
    row = specs.ZOO[network]
    if not ending:
        sentence = f"{row.builder} trained on ImageNet ({row.source}), {row.dim:,} numbers an image"
        sentence += "; a good start for most images" if name == "resnet50" else ""
    elif ending in POOLED:
        sentence = POOLED[ending].format(network)
    else:
        sentence = f"{ending.rpartition('-pcaw')[2]} whitened numbers of {network}-{ending.rpartition('-pcaw')[0]}"
    # What is not in the cache is fetched at the first use, if it can be; that is found out then.
    remedy = "" if weights.available(network) else f"{network}: its weights are fetched at the first use (internet)"
    return _entry(name, sentence, remedy)


def _missing_for(name: str) -> str:
    return extras.missing("faces", "dlib", "face_recognition_models") if name == "dlib-face" else ""


def _indexes(options: argparse.Namespace) -> int:
    entries = []
    for name, (extra, sentence) in INDEXES.items():
        entries.append(_entry(name, sentence, extras.missing(extra) if extra else ""))
    _print(entries, options)
    if not options.json:
        print("options follow a question mark: faiss:hnsw?m=32&search=128")
    return OK


def _entry(name: str, sentence: str, remedy: str) -> dict:
    return {"name": name, "sentence": sentence, "available": not remedy, "remedy": remedy or None}


def _print(entries: list[dict], options: argparse.Namespace) -> None:
    if options.json:
        print_json(entries)
        return
    width = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        missing = "" if entry["available"] else "  [not here]"
        print(f"{shown(entry['name']):<{width}}  {entry['sentence']}{missing}")
    for remedy in dict.fromkeys(entry["remedy"] for entry in entries if not entry["available"]):
        print(f"[not here]: {remedy}")
