"""The table of all networks: counts against published numbers and against the layers, and what is scored."""

import keras
import numpy as np
import pytest

from helpers.evaluation import builders, metrics, runner
from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.lessons import zoo_table
from helpers.networks import compiled, specs, weights
from helpers.search.index import open_index

#: Published multiply-adds in 1e9 at the network's own input size, and the source.
PUBLISHED = {
    "resnet50": 3.8,  # He et al. 2016, table 1
    "resnet152": 11.3,  # He et al. 2016, table 1
    "vgg16": 15.3,  # He et al. 2016, section 3.3
    "efficientnet-lite0": 0.407,  # its README, which includes normalizations
    "efficientnet-lite1": 0.631,
    "efficientnet-lite2": 0.899,
    "efficientnetv2l": 53,  # Tan & Le 2021, table 7
}
QUICK = ("resnet50", "efficientnet-lite0")
#: The three largest networks take longer than all others.
LARGE = ("efficientnetv2l", "inceptionresnetv2", "resnet152")
MARKS = {name: "slow" for name in specs.ZOO if name not in QUICK} | dict.fromkeys(LARGE, "measured")


def multiply_adds(model):
    """Those of convolutions and dense layers, from the layers' shapes."""
    count = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense):
            positions = int(np.prod(layer.output.shape[1:-1])) if len(layer.output.shape) == 4 else 1
            count += int(np.prod(layer.kernel.shape)) * positions
    return count


def structure(name):
    return dict(zip(zoo_table.STRUCTURE, zoo_table.structure(specs.network(name)), strict=False))


@pytest.fixture(scope="module", autouse=True)
def new_cache(tmp_path_factory):
    """Without weights; shared, because building ResNet50 takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=getattr(pytest.mark, MARKS[name]) if name in MARKS else ()) for name in specs.ZOO]
)
def test_structure(name, monkeypatch):
    model = specs.embedding_architecture(name)
    monkeypatch.setattr(specs, "embedding_architecture", {name: model}.__getitem__)  # building it takes seconds
    facts = structure(name)
    flops = facts["GFLOPs (2 × multiply-adds)"]
    assert flops == 2 * multiply_adds(model) / 1e9
    if name in PUBLISHED:
        assert flops / 2 == pytest.approx(PUBLISHED[name], rel=0.07)
    parameters = sum(int(np.prod(variable.shape)) for variable in model.weights)
    assert facts["million parameters"] == parameters / 1e6
    layers = sum(bool(layer.weights) for layer in model.layers)
    assert facts["layers frozen"] + facts["layers trained"] == layers
    assert (facts["dimensions"], facts["input"]) == (specs.network(name).dim, specs.network(name).size)


def test_structure_of_resnet50():
    facts = structure("ResNet50")
    # Without the 2,049,000 parameters of the classifier, of 25,636,712 in all.
    del facts["GFLOPs (2 × multiply-adds)"]
    assert list(facts.values()) == ["resnet50", 224, 23.587712, 96, 10, 2048]


def test_facts_are_read_from_the_cache(monkeypatch):
    first = structure("efficientnet-lite0")
    monkeypatch.delattr(specs, "embedding_architecture")
    assert structure("efficientnet-lite0") == first


def test_table():
    """Scores are those of the extractor. A network without weights gets none.

    It takes up to ten seconds, because it compiles three networks.
    """
    images = samples.photos().subset(range(0, 100, 2))
    protocol = builders.leave_one_out(images, "photos")
    table = zoo_table.zoo_table(protocol, images, QUICK)
    assert table.columns.tolist() == list(zoo_table.COLUMNS)
    assert table["network"].tolist() == [*QUICK, "chance", "ceiling"]
    vectors = open_extractor("efficientnet-lite0").extract(images)
    scores = metrics.evaluate(runner.run(protocol, vectors, open_index("exact:cosine")), protocol)
    rows = table.set_index("network")
    for metric in zoo_table.METRICS:
        assert rows.loc["efficientnet-lite0", metric] == scores.mean(metric)
        assert rows.loc["chance", metric] == scores.mean_chance(metric)
        assert np.isnan(rows.loc["resnet50", metric])
    assert rows["scores"].tolist() == ["not measured: no weights here", "measured", "", ""]
    assert rows.loc["resnet50", "ms per image"] > rows.loc["efficientnet-lite0", "ms per image"] > 0
    lines = zoo_table.show(table).data.splitlines()
    assert compiled.processor() in lines[0] and "GFLOPs (2 × multiply-adds)" in lines[2]
    assert lines[4].startswith("| resnet50 | 224 | 23.6 | 7.71 | 96 | 10 | 2,048 | ")
    assert lines[4].endswith(" |  |  |  |  |  | not measured: no weights here |")
    assert lines[5].endswith(" | measured |") and f" {scores.mean('mAP'):.3f} [" in lines[5]


def test_networks_with_weights_on_this_computer(monkeypatch):
    monkeypatch.setattr(weights, "local", {"vgg16", "resnet50"}.__contains__)
    assert zoo_table.with_weights(specs.ZOO) == ["resnet50", "vgg16"]
    assert zoo_table.with_weights(["VGG16", "resnet152"]) == ["vgg16"]
