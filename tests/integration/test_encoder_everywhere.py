"""An engine of an image–text encoder gives the same order to a text in Python, on the command line and over HTTP.

The encoder has random weights, so the order has no meaning: only that all of them agree.
"""

import json
import shutil

import numpy as np
import pytest

from helpers.cli import main as cli
from helpers.features.registry import open_extractor
from helpers.images import samples
from helpers.search.combined import QueryPart, search_parts
from helpers.search.engine import Engine
from tests.integration.test_service import serving

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")
from tests.unit.test_onnx_encoder import write_clip  # noqa: E402 (needs both)

TEXT = "a photo of a red bird"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "photos").mkdir()
    for path in samples.photos().paths[:12]:
        shutil.copy(path, folder / "photos")
    encoder = write_clip(folder / "encoder")
    assert cli.main(["index", str(folder / "photos"), "-x", f"onnx:{encoder}", "-o", str(folder / "my.engine")]) == 0
    return folder / "my.engine"


@pytest.fixture(scope="module")
def expected(engine):
    """The ids by the cosines of the encoder's own vectors."""
    loaded = Engine.load(engine)
    extractor = open_extractor(loaded.extractor.name)
    cosines = extractor.extract(loaded.gallery) @ extractor.embed_text([TEXT])[0]
    return np.argsort(-cosines, kind="stable").tolist(), np.sort(cosines)[::-1]


def test_python(engine, expected):
    ranking = search_parts(Engine.load(engine), [QueryPart(text=TEXT)], 12)
    assert ranking.ids[0].tolist() == expected[0]
    assert ranking.scores[0] == pytest.approx(expected[1], abs=1e-5)


def test_command_line(engine, expected, capsys):
    assert cli.main(["search", "-e", str(engine), "--text", TEXT, "-k", "12", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert [result["id"] for result in found["results"]] == expected[0]
    # Words of GloVe and class scores are not used.
    assert cli.main(["search", "-e", str(engine), "--text", TEXT, "--vectors", "words.txt"]) == 2


def test_service(engine, expected):
    with serving(engine) as client:
        assert client.get("/v1/info").json()["text"] is True
        response = client.post("/v1/search/combined", json={"parts": [{"text": TEXT}], "k": 12})
        assert [result["id"] for result in response.json()["results"]] == expected[0]
        assert client.post("/v1/search/combined", json={"parts": [{"text": " "}]}).status_code == 422
