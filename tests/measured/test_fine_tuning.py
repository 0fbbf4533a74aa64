"""Transfer learning on the downloaded copies: what notebook 05 says of Imagenette and Caltech-101, measured again."""

import keras
import numpy as np
import pytest

from helpers import paths
from helpers.evaluation import builders, intervals, metrics, protocol_files, runner
from helpers.features.feature_maps import feature_maps, vectors
from helpers.features.registry import open_extractor
from helpers.images import caltech101, imagenet
from helpers.networks import examples, training, transfer
from helpers.networks.losses import MarginSoftmaxLoss
from helpers.search.index import open_index

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(
        paths.mirror_dir() is None,
        reason="NOT TESTED: fine-tuning on Imagenette needs the data sets; set LOOKALIKE_MIRROR to their folder",
    ),
]


def scored(protocol, matrix):
    return metrics.evaluate(runner.run(protocol, matrix, open_index("exact:cosine")), protocol)


def test_tuning_the_last_block_lifts_imagenette():
    """One epoch, both stages: mAP from 0.807 to at least 0.90 on images that were never learned from."""
    protocol, images = protocol_files.frozen("imagenette-val-train").bind(imagenet.imagenette())
    learn = builders.learnable(protocol, images)
    row_of = {key: row for row, key in enumerate(images.keys)}
    rows = np.array([row_of[key] for key in learn.keys])
    assert len(learn) == 1000 and not set(rows.tolist()) & set(protocol.queries.tolist())

    cut = transfer.split_network("resnet50")
    maps = feature_maps(images, cut, progress=False)
    before = scored(protocol, vectors(cut.tail, maps))
    # As it was measured without maps: their 16 bits change nothing.
    assert before.n_queries == 400
    assert before.mean("top-1") == pytest.approx(0.975, abs=0.01)
    assert before.mean("mAP") == pytest.approx(0.807, abs=0.005)
    assert before.mean_chance("top-1") == pytest.approx(0.1, abs=1e-3) and before.mean_ceiling("mAP") == 1

    loss = MarginSoftmaxLoss("cosface", margin=0.2, scale=16)
    head = transfer.head(2048, 10, cosine=True)
    head.compile(keras.optimizers.Adam(3e-4), loss, jit_compile=False)
    as_long = vectors(cut.tail, maps[rows], normalize=False)
    training.fit(head, examples.arrays(as_long, learn.labels), name="test-head", epochs=40, progress=False)
    model = transfer.warmed_up(cut.tail, head)
    model.compile(keras.optimizers.Adam(3e-5), loss, jit_compile=False)
    training.fit(model, examples.arrays(maps[rows], learn.labels), name="test-tuned", epochs=1, progress=False)
    after = scored(protocol, vectors(cut.tail, maps))

    paired = intervals.paired_difference(after.values["mAP"], before.values["mAP"])
    assert after.mean("mAP") >= 0.90 and paired.low > 0.05 and paired.p_value < 0.01
    assert after.mean("top-1") >= before.mean("top-1") - 0.02


def test_what_imagenet_knows_of_caltech101():
    protocol, images = protocol_files.frozen("caltech101-leave-one-out").bind(caltech101.load())
    score = scored(protocol, open_extractor("resnet50").extract(images, progress=False))
    known = np.isin(images.class_names, list(caltech101.KNOWN_TO_IMAGENET))
    assert (known.sum(), (~known).sum()) == (17, 13)
    known = known[protocol.labels[protocol.queries]]
    assert score.values["mAP"][known].mean() == pytest.approx(0.847, abs=0.01)
    assert score.values["mAP"][~known].mean() == pytest.approx(0.730, abs=0.01)
