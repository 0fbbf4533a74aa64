"""Recall of keypoint search on a thousand changed copies (a third of them in CI), and the vocabularies, learned again.

Notebook 07's full profile uses all 8,550 copies.
"""

import numpy as np
import pytest

from helpers import paths
from helpers.evaluation import protocol_files
from helpers.evaluation.known_item import KnownItemResults
from helpers.features.keypoints import extract_each
from helpers.features.vocabulary import draw, learn, shipped
from helpers.images import imagenet, known_items, reading
from helpers.images.known_items import CHANGES, Change
from helpers.lessons.keypoint_votes import VoteIndex
from helpers.search.ranking import Ranking

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(
        paths.mirror_dir() is None,
        reason="NOT TESTED: a thousand changed copies need Imagenette; set LOOKALIKE_MIRROR to its folder",
    ),
]

#: Number of originals; each has 6.6 copies in the mean.
ORIGINALS = [50, 150]
TURNS = [Change("rotation", degrees) for degrees in CHANGES["rotation"].strengths]
SMALL = [Change("crop", 0.5), Change("scale", 0.25)]


def queries(images):
    """(row, change, copy): each original rotated by four or five of 23 angles, cropped to a quarter, and shrunk."""
    for number, change in enumerate(TURNS):
        rows = [row for row in range(len(images)) if (row + number) % 5 == 0]
        for position, _, copy in known_items.queries([images[row] for row in rows], [], [change]):
            yield rows[position], change, copy
    yield from known_items.queries(images, [], SMALL)


@pytest.mark.parametrize("count", ORIGINALS)
def test_votes_find_rotated_cropped_and_shrunk_copies(count, capsys):
    images = imagenet.imagenette()
    images = images.subset(np.linspace(0, len(images) - 1, count).astype(int))
    images = [reading.read_image(path) for path in images.paths]
    index = VoteIndex().add(extract_each(images), range(count))
    originals, changes, copies = zip(*queries(images), strict=True)
    assert len(copies) == count * 33 // 5 and len(set(originals)) == count
    found = [index.search([query], 1) for query in extract_each(copies)]
    ranking = Ranking(*(np.concatenate([getattr(one, name) for one in found]) for name in ("ids", "scores")))
    results = KnownItemResults({"votes": ranking}, np.array(originals), list(changes))
    by_kind, by_strength = results.by_kind()["votes"].set_index("kind"), results.by_strength()["votes"]
    with capsys.disabled():
        print(f"\n{by_kind.round(3)}")
    assert by_kind.loc["rotation", "recall@1"] >= 0.97
    assert by_kind.loc["crop", "recall@1"] >= 0.93
    assert by_kind.loc["scale", "recall@1"] >= 0.93
    # For every angle.
    assert by_strength[by_strength["kind"] == "rotation"]["recall@1"].min() >= 0.92


def test_the_vocabulary_can_be_learned_again():
    """As in data/make_vocabularies.py, with a tolerance for the rounding of other processors."""
    protocol, images = protocol_files.frozen("imagenette-val-train").bind(imagenet.imagenette())
    train = images.subset(protocol.gallery)
    # One image is enough, because the idf is not compared.
    again, kept = learn(train.subset([0]), 64, drawn=draw(train, progress=False), progress=False), shipped(64)
    assert again.config == kept.config
    for name in ("mean", "words", "shares", "variances"):
        assert np.abs(getattr(again, name) - getattr(kept, name)).max() < 1e-3, name
