"""One name, one order: the command line, the query picker, the service and the library re-rank alike."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from helpers.cli import main as cli
from helpers.images import samples
from helpers.images.known_items import Change
from helpers.images.reading import read_image
from helpers.picker.state import Picker
from helpers.search.engine import Engine
from helpers.search.rerank import NAMES, RERANKERS, SHORTLIST, SearchSpace, rerank
from helpers.service.application import create_app
from helpers.service.schemas import to_text
from helpers.service.settings import Settings

pytestmark = pytest.mark.usefixtures("fresh_cache")

#: Rows of gallery images that are queries, too.
INSIDE = (4, 31, 77)


@pytest.fixture(scope="module")
def engine():
    """More images than the shortlist: photographs, and others of no class."""
    images = samples.with_distractors()
    return Engine("hsv-histogram").fit(images.subset(range(0, len(images), 3)))


@pytest.fixture(scope="module")
def folder(engine, tmp_path_factory):
    return engine.save(tmp_path_factory.mktemp("saved") / "my.engine")


@pytest.fixture(scope="module")
def queries(engine, tmp_path_factory):
    """Files that are in no gallery: two photographs, and one of the gallery's, turned."""
    images = samples.with_distractors()
    turned = tmp_path_factory.mktemp("query") / "turned.png"
    pixels = read_image(engine.gallery.paths[52])
    Image.fromarray(Change("rotation", 75)(pixels, np.random.default_rng(0))).save(turned)
    return [images.paths[40], images.paths[121], turned]


def by_library(engine, path, k, name, exclude=()):
    image = read_image(path)
    vector = engine.extractor.extract_arrays([image])[0]
    found = rerank(SearchSpace.of(engine, exclude), vector, k, name, image).ids[0]
    return found[found >= 0].tolist()


def by_command(folder, path, k, name, capsys, *options):
    capsys.readouterr()
    assert cli.main(["search", str(path), "-e", str(folder), "-k", str(k), "--rerank", name, "--json", *options]) == 0
    return [each["id"] for each in json.loads(capsys.readouterr().out)[0]["results"]]


def shown(picker):
    assert picker.search().message is None
    return [each.id for each in picker.columns[0].results]


def ask(folder, *requests):
    """The responses of a service to requests: (method, address, other arguments of httpx)."""

    async def respond():
        app = create_app(Settings(folder=folder, hosts=("testserver",)))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://testserver") as client,
        ):
            return [await client.request(method, address, **more) for method, address, more in requests]

    # In a thread of its own, because Playwright leaves an event loop running in the thread of the tests.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(respond())).result()


def ids(response):
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json()["results"]]


def upload(path, **parameters):
    return "POST", "/v1/search", {"files": {"image": path.read_bytes()}, "params": parameters}


@pytest.mark.parametrize("name", NAMES)
def test_all_four_give_the_same_order(engine, folder, queries, name, capsys):
    k = 100
    results = ask(folder, *[upload(path, k=k, rerank=name) for path in queries])
    picker = Picker(engine.gallery, ["hsv-histogram"], ["exact:cosine"], k=k).use(reranker=name)
    orders = []
    for path, result in zip(queries, results, strict=True):
        order = by_library(engine, path, k, name)
        assert by_command(folder, path, k, name, capsys) == order
        assert ids(result) == order
        assert shown(picker.choose_path(path)) == order
        orders.append(order)
    plain = [by_library(engine, path, k, "none") for path in queries]
    assert (orders == plain) == (name == "none"), "a re-ranker that changes nothing would prove nothing"


@pytest.mark.parametrize("name", NAMES)
def test_behind_the_shortlist_too_on_every_page(engine, folder, queries, name, capsys):
    n = len(engine)
    assert n > SHORTLIST + 20
    path = queries[-1]
    pages = ask(folder, *[upload(path, k=30, offset=offset, rerank=name) for offset in range(0, n, 30)])
    order = by_library(engine, path, n, name)
    assert by_command(folder, path, n, name, capsys) == order
    assert [id for page in pages for id in ids(page)] == order and sorted(order) == list(range(n))
    assert [page.json()["more"] for page in pages] == [True] * (len(pages) - 1) + [False]


@pytest.mark.parametrize("name", NAMES)
def test_a_query_of_the_gallery_is_left_out_and_has_no_say(engine, folder, tmp_path, name, capsys):
    """The command line excludes it, or searches an engine from which it was removed."""
    results = ask(folder, *[("GET", f"/v1/search/id/{id}", {"params": {"k": 60, "rerank": name}}) for id in INSIDE])
    picker = Picker(engine.gallery, ["hsv-histogram"], ["exact:cosine"], k=60).use(reranker=name)
    for id, result in zip(INSIDE, results, strict=True):
        path = engine.gallery.paths[id]
        order = by_library(engine, path, 60, name, [id])
        assert id not in order and ids(result) == order
        assert shown(picker.choose(id)) == order
        assert by_command(folder, path, 60, name, capsys, "--exclude", str(path)) == order
        smaller = Engine.load(folder)
        smaller.remove([id])
        assert by_command(smaller.save(tmp_path / f"{id}.index"), path, 60, name, capsys) == order


@pytest.mark.parametrize("name", NAMES)
def test_the_service_reranks_within_a_class(engine, folder, queries, name):
    """The order is that of a gallery of this class alone."""
    label = engine.gallery.labels[52]
    rows = np.flatnonzero(engine.gallery.labels == label)
    class_name = engine.gallery.class_names[label]
    alone = Engine(engine.extractor).fit(engine.gallery.subset(rows))
    results = ask(folder, *[upload(path, k=50, rerank=name, class_name=class_name) for path in queries])
    for path, result in zip(queries, results, strict=True):
        assert ids(result) == rows[by_library(alone, path, 50, name)].tolist()


def test_a_crop_is_compared_by_its_own_pixels(engine, folder, queries):
    crop = {"left": 0.25, "top": 0.25, "width": 0.5, "height": 0.5}
    path = engine.gallery.paths[52]
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    part = pixels[int(height / 4) : round(height * 3 / 4), int(width / 4) : round(width * 3 / 4)]
    (result,) = ask(folder, upload(path, k=20, rerank="geometry", **crop))
    vector = engine.extractor.extract_arrays([part])[0]
    assert ids(result) == rerank(SearchSpace.of(engine), vector, 20, "geometry", part).ids[0].tolist()


def test_a_vector_is_enough_but_for_geometry(engine, folder):
    vector = engine.index.vectors([9])[0]
    body = {"vector": to_text(vector), "k": 20}
    requests = [("POST", "/v1/search/vector", {"json": body | {"rerank": name}}) for name in NAMES]
    for name, result in zip(NAMES, ask(folder, *requests), strict=True):
        if RERANKERS[name].needs_image:
            assert result.status_code == 422 and "its vector is not enough" in result.json()["message"]
        else:
            assert ids(result) == rerank(SearchSpace.of(engine), vector, 20, name).ids[0].tolist()
            assert result.json()["vector"] is None, "the client has it"


def test_what_can_not_be_is_refused_with_the_names(engine, folder, queries, tmp_path, capsys):
    (result,) = ask(folder, upload(queries[0], rerank="magic"))
    assert result.status_code == 422 and all(name in result.text for name in NAMES)
    assert cli.main(["search", str(queries[0]), "-e", str(folder), "--rerank", "magic"]) == 2
    errors = capsys.readouterr().err
    assert all(name in errors for name in NAMES)

    by_distance = Engine(engine.extractor, "exact:euclidean").fit(engine.gallery.subset(range(30)))
    other = by_distance.save(tmp_path / "distances.index")
    results = ask(other, upload(queries[0], rerank="diffusion"), upload(queries[0], rerank="geometry"))
    assert results[0].status_code == 422 and "choose none or geometry" in results[0].json()["message"]
    assert cli.main(["search", str(queries[0]), "-e", str(other), "--rerank", "diffusion"]) == 2
    assert "choose none or geometry" in capsys.readouterr().err
    assert ids(results[1]) == by_library(by_distance, queries[0], 20, "geometry")


def test_an_image_whose_file_is_gone_can_not_be_compared_by_geometry(engine, tmp_path):
    (tmp_path / "photos").mkdir()
    images = engine.gallery.subset(range(12))
    paths = [tmp_path / "photos" / path.name for path in images.paths]
    for path, original in zip(paths, images.paths, strict=True):
        path.write_bytes(original.read_bytes())
    own = Engine(engine.extractor).fit(type(images)("own", tuple(paths), images.labels, images.class_names))
    folder = own.save(tmp_path / "own.index")
    paths[3].unlink()
    missing, there = ask(
        folder, *[("GET", "/v1/search/id/3", {"params": {"rerank": name}}) for name in ("geometry", "diffusion")]
    )
    assert missing.status_code == 404 and len(ids(there)) == 11
