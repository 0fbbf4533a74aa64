"""`lookalike classify`, `words`: class scores of an engine's images, and neighbors of words."""

import argparse
import shlex

from helpers.cli import common, locations, text_queries
from helpers.cli.common import OK, USAGE, CommandError, log, pluralize, printable


def register(commands: "common.Commands") -> None:
    """Add the commands of this module to a parser."""
    classify = common.add_command(
        commands,
        "classify",
        _classify,
        "Compute the class scores of an engine's images, so that words find them.",
        """
lookalike classify
lookalike classify my.engine --network resnet50
lookalike search --text "sailing boat"
""",
        """
The scores are the probabilities of ImageNet's classes by the classifier of a network. They are stored in the engine,
50 per image. `add`, `sync` and `index` compute those of new images. With another network, all are computed again.
""",
        "stopped; the scores so far are stored: run the same command again to continue",
    )
    classify.add_argument("engine", metavar="ENGINE", nargs="?", help=locations.DEFAULT_HELP)
    classify.add_argument(
        "--network", metavar="NAME", default=common.DEFAULT_EXTRACTOR, help="the network; default: %(default)s"
    )

    words = common.add_command(
        commands,
        "words",
        _words,
        "List the words of similar meaning to a text.",
        """
lookalike words sailboat
lookalike words "sailing boat" -k 20 --json
""",
        'The score is the cosine of the word vectors. --json prints a list of {"word", "score"}.',
    )
    words.add_argument("text", metavar="TEXT")
    words.add_argument(
        "-k", type=common.positive, default=10, metavar="K", help="number of words; default: %(default)s"
    )
    words.add_argument("--vectors", metavar="FILE", help="a text file of word vectors; default: GloVe 6B")
    common.add_formats(words)


def _classify(options: argparse.Namespace) -> int:
    common.quiet_libraries()
    from tqdm.auto import tqdm

    from helpers.features.deep import ClassScores
    from helpers.search.word_index import classify

    folder = locations.engine_folder(options.engine)
    try:
        classifier = ClassScores(options.network)
    except KeyError as error:
        raise CommandError(str(error.args[0]), USAGE) from error
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
