"""One query, one order: the library, the command line, the picker, the page and the API, with the same settings."""

import json

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import expect

from helpers.cli import main as cli
from helpers.images import samples
from helpers.images.imageset import NO_CLASS, ImageSet, concatenate
from helpers.images.known_items import Change
from helpers.images.reading import read_image
from helpers.picker.state import Picker
from helpers.search.engine import Engine
from helpers.search.rerank import NAMES, SearchSpace, rerank, rocchio
from helpers.service.service_process import ServiceProcess

#: A query of the gallery, which is not a result; and how many results are compared.
QUERY, K = 52, 20


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Photographs, others of no class, and a turned copy of the query, which re-ranking by geometry puts first."""
    images = samples.with_distractors()
    images = images.subset(range(0, len(images), 3))
    turned = tmp_path_factory.mktemp("copy") / "turned.png"
    pixels = Change("rotation", 75)(read_image(images.paths[QUERY]), np.random.default_rng(0))
    Image.fromarray(pixels).save(turned)
    copy = ImageSet("copy", (turned,), np.array([NO_CLASS]), ())
    return Engine("hsv-histogram").fit(concatenate("gallery", [images, copy]))


@pytest.fixture(scope="module")
def service(engine, tmp_path_factory):
    with ServiceProcess(engine.save(tmp_path_factory.mktemp("saved") / "my.engine")) as process:
        yield process


def by_library(engine, name):
    path = engine.gallery.paths[QUERY]
    vector = engine.index.vectors([QUERY])[0]
    return rerank(SearchSpace.of(engine, [QUERY]), vector, K, name, read_image(path)).ids[0].tolist()


def by_command(engine, folder, name, capsys):
    path = str(engine.gallery.paths[QUERY])
    capsys.readouterr()
    line = ["search", path, "--exclude", path, "-e", str(folder), "-k", str(K), "--rerank", name, "--json"]
    assert cli.main(line) == 0
    return [each["id"] for each in json.loads(capsys.readouterr().out)[0]["results"]]


def by_picker(engine, name):
    picker = Picker(engine.gallery, ["hsv-histogram"], ["exact:cosine"], k=K).use(reranker=name)
    assert picker.choose(QUERY).search().message is None
    return [each.id for each in picker.columns[0].results]


def by_api(url, name):
    response = requests.get(f"{url}/v1/search/id/{QUERY}", params={"k": K, "rerank": name}, timeout=60)
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json()["results"]]


def by_page(open_page, url, name):
    page = open_page(f"{url}/#id={QUERY}" + ("" if name == "none" else f"&rerank={name}"))
    expect(page.locator(".card").nth(K - 1)).to_be_visible()
    return page.locator(".card").evaluate_all("cards => cards.map(card => Number(card.dataset.id))")[:K]


def names_on(page):
    """The re-rankers that the page offers."""
    return [name for name in NAMES if name == "none" or page.locator(f'#rerank option[value="{name}"]').count()]


def test_five_ways_give_the_same_order(engine, service, open_page, capsys):
    page = open_page(f"{service.url}/#id={QUERY}")
    expect(page.locator(".card").nth(K - 1)).to_be_visible()
    offered, orders = names_on(page), {}
    assert offered == list(NAMES)
    for name in NAMES:
        orders[name] = by_library(engine, name)
        assert len(orders[name]) == K and QUERY not in orders[name]
        assert by_command(engine, service.folder, name, capsys) == orders[name], name
        assert by_picker(engine, name) == orders[name], name
        assert by_api(service.url, name) == orders[name], name
        if name in offered:
            assert by_page(open_page, service.url, name) == orders[name], name
    # Otherwise, a way that ignores the re-ranker would pass.
    assert [name for name in NAMES if orders[name] == orders["none"]] == ["none"]


def test_five_ways_move_the_query_by_the_same_marks(engine, service, open_page, capsys):
    index, path = engine.index, str(engine.gallery.paths[QUERY])
    plain = by_library(engine, "none")
    good, bad = plain[3:5], plain[1:2]
    moved = rocchio(index.vectors([QUERY])[0], index.vectors(good), index.vectors(bad))
    expected = index.search(moved[None], K, excluded=[QUERY]).ids[0].tolist()
    assert expected != plain and expected[0] in good

    marks = [option for name, ids in (("--good", good), ("--bad", bad)) for id in ids for option in (name, str(id))]
    line = ["search", path, "--exclude", path, "-e", str(service.folder), "-k", str(K), *marks, "--json"]
    assert cli.main(line) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)[0]["results"]] == expected

    picker = Picker(engine.gallery, ["hsv-histogram"], ["exact:cosine"], k=K).choose(QUERY).search()
    for id in good + bad:
        picker.mark(id, id in good)
    assert picker.search_again().search().message is None
    assert [each.id for each in picker.columns[0].results] == expected

    parameters = {"k": K, "good": good, "bad": bad}
    response = requests.get(f"{service.url}/v1/search/id/{QUERY}", params=parameters, timeout=60)
    assert [each["id"] for each in response.json()["results"]] == expected

    page = open_page(f"{service.url}/#id={QUERY}&good={','.join(map(str, good))}&bad={bad[0]}")
    expect(page.locator(".card").nth(K - 1)).to_be_visible()
    assert page.locator(".card").evaluate_all("cards => cards.map(card => Number(card.dataset.id))")[:K] == expected
