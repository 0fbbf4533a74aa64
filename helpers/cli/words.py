"""`lookalike classify`, `tags`, `words`: class scores of an engine's images, words for images, and similar words."""

import argparse
import shlex
import sys

from helpers.cli import common, locations, text_queries
from helpers.cli.common import OK, USAGE, CommandError, log, pluralize, printable


def register(commands: "common.Commands") -> None:
    classify = common.add_command(
        commands,
        "classify",
        _classify,
        "Compute the class scores of an engine's images, for searches by words.",
        """
lookalike classify
lookalike classify --network resnet50 -e photos.engine
""",
        """
The scores are the probabilities of ImageNet's classes by the classifier of a network. They are stored in the engine,
50 per image. Then `lookalike search --text "sailing boat"` finds images. `add`, `sync` and `index` compute the scores
of new images. With another network, all are computed again.
""",
        "stopped; the scores so far are stored: run the same command again to continue",
    )
    locations.add_engine(classify)
    classify.add_argument(
        "--network", metavar="NAME", default=common.DEFAULT_EXTRACTOR, help="the network; default: %(default)s"
    )

    tags = common.add_command(
        commands,
        "tags",
        _tags,
        "Find words for images: the names of their likeliest classes.",
        """
lookalike tags holiday.jpg
lookalike tags photos --csv
lookalike tags photos --sidecars
""",
        """
The words are names of ImageNet's 1000 classes. The score is the estimated probability that a word is right. An image
may have no words. --csv prints the columns image, tag and score; --json prints a list of {"image", "tags": [{"word",
"score"}]}. --sidecars writes the words of photo.jpg into photo.jpg.xmp, where photo managers read them; existing
sidecars are kept.
""",
        common.VECTORS_KEPT,
    )
    tags.add_argument("images", metavar="IMAGE|FOLDER", nargs="+")
    common.add_k(tags, 5, "largest number of words per image")
    text = "minimum score of a word; default: %(default)s"
    tags.add_argument("--threshold", type=common.number(float, 0, 1), default=0.1, metavar="P", help=text)
    common.add_follow_links(tags)
    formats = common.add_formats(tags)
    formats.add_argument("--sidecars", action="store_true", help="write XMP files next to the images")

    words = common.add_command(
        commands,
        "words",
        _words,
        "List the words whose meaning is similar to that of a text.",
        """
lookalike words sailboat
lookalike words "sailing boat" -k 20 --json
""",
        'The score is the cosine of the word vectors. --json prints a list of {"word", "score"}.',
    )
    words.add_argument("text", metavar="TEXT")
    common.add_k(words, 10, "number of words")
    words.add_argument("--vectors", metavar="FILE", help="a text file of word vectors; default: GloVe 6B")
    common.add_formats(words)


def _classify(options: argparse.Namespace) -> int:
    from tqdm.auto import tqdm

    from helpers.features.deep import ClassScores
    from helpers.networks import specs
    from helpers.search.word_index import classify

    folder = locations.engine_folder(options.engine)
    try:
        classifier = ClassScores(options.network)
    except KeyError as error:
        suggestion = common.did_you_mean(options.network, specs.ZOO)
        raise CommandError(f"{error.args[0]}{suggestion}", USAGE) from error
    engine = locations.load_engine(folder)
    with tqdm(total=len(engine), unit="image", disable=None) as bar:
        skipped = classify(folder, engine, classifier, bar.update)
    if skipped:
        log(f"note: {pluralize(skipped, 'image')} cannot be read and got no scores")
    print(f"{printable(folder)}: {pluralize(len(engine) - skipped, 'image')} with class scores of {options.network}")
    log(f'next: lookalike search --text "…" -e {shlex.quote(str(folder))}')
    return OK


def _words(options: argparse.Namespace) -> int:
    vectors = text_queries.open_vectors(options.vectors)
    found = vectors.nearest(options.text, options.k)
    if options.json:
        common.print_json([{"word": word, "score": round(score, 6)} for word, score in found])
    elif options.csv:
        common.print_csv(("word", "score"), [(word, round(score, 6)) for word, score in found])
    else:
        for word, score in found:
            print(f"{score:8.4f}  {printable(word)}")
    return OK


def _tags(options: argparse.Namespace) -> int:
    import numpy as np

    from helpers.features.deep import ClassScores
    from helpers.features.tags import Tagger, write_sidecars, write_table

    images, only_files = locations.images_named(options.images, options.follow_links)
    tagger = Tagger.for_network(common.DEFAULT_EXTRACTOR, options.k, options.threshold)
    # A named file that cannot be read is an error; in a folder, the extractor warns about such files.
    scores = ClassScores(common.DEFAULT_EXTRACTOR).extract(images, strict=only_files)
    read = ~np.isnan(scores).any(axis=1)
    images, found = images.subset(read), tagger.tags(scores[read])
    names = [str(path) for path in images.paths]
    if not names:
        raise CommandError("none of these images can be read")
    if options.csv:
        write_table(sys.stdout, names, found)
    elif options.json:
        words = [[{"word": tag.word, "score": round(tag.score, 4)} for tag in tags] for tags in found]
        common.print_json([{"image": name, "tags": tags} for name, tags in zip(names, words, strict=True)])
    elif options.sidecars:
        done = write_sidecars(images.paths, found)
        print(f"{pluralize(len(done.written), 'sidecar')} written")
        if done.kept:
            log(f"note: {pluralize(len(done.kept), 'sidecar')} kept, such as {printable(done.kept[0])}")
        if none := sum(not tags for tags in found):
            log(
                f"note: {pluralize(none, 'image')} without words: no class has a score of {options.threshold:g} or more"
            )
    else:
        for name, tags in zip(names, found, strict=True):
            print(f"{printable(name)}  {', '.join(f'{tag.word} {tag.score:.2f}' for tag in tags) or '–'}")
    return OK
