"""The service against its OpenAPI description: thousands of generated requests, valid and invalid."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from helpers.images import samples
from helpers.search.engine import Engine
from helpers.service.application import create_app
from helpers.service.schemas import to_text
from helpers.service.settings import Settings

KEY = "the key of the test"
#: Per operation with parameters and per kind: valid, valid with existing images, and invalid. All take two minutes.
FEW, ALL = 8, 75


@pytest.fixture(scope="module")
def engine():
    photos = samples.photos()
    return Engine("hsv-histogram").fit(photos.subset(range(0, len(photos), 5)))


@pytest.fixture(scope="module")
def schema(engine, tmp_path_factory):
    # The import takes seconds.
    import schemathesis
    from schemathesis.config import PositiveDataAcceptanceConfig

    folder = engine.save(tmp_path_factory.mktemp("described") / "own.index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        app = create_app(Settings(folder=folder, api_key=KEY, hosts=("testserver",)))
        config = schemathesis.Config()
        checks = config.projects.default.checks
        # A valid file may be no image, and a crop of valid fractions may extend beyond the image.
        checks.positive_data_acceptance = PositiveDataAcceptanceConfig(
            expected_statuses=["2xx", "304", "400", "403", "404", "415", "422"]
        )
        schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
        yield schema
        schemathesis.python.asgi.shutdown_lifespans()


@pytest.mark.parametrize("count", [FEW, pytest.param(ALL, marks=pytest.mark.measured)])
def test_the_service_matches_its_description(schema, engine, count):
    from schemathesis import GenerationMode

    images = [path.read_bytes() for path in engine.gallery.paths[:20]]
    vectors = [to_text(vector) for vector in engine.index.vectors(range(20))]
    statuses, sent = Counter(), Counter()

    def existing(case, number):
        """A request for an existing image, which random values rarely hit."""
        if isinstance(case.path_parameters.get("id"), int):
            case.path_parameters["id"] %= 80
        if isinstance(case.body, dict) and "image" in case.body:
            case.body["image"] = images[number % 20]
        if isinstance(case.body, dict) and "vector" in case.body:
            case.body["vector"] = vectors[number % 20]
        return case

    def send(case):
        result = case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"})
        statuses[result.status_code] += 1
        sent[f"{case.method} {case.operation.path}"] += 1

    for result in schema.get_all_operations():
        operation = result.ok()
        valid = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        has_input = bool(list(operation.iter_parameters()) or operation.body)
        kinds = [valid]
        if has_input:
            invalid = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
            kinds += [st.builds(existing, valid, st.integers(0, 99)), invalid]
        run_settings = settings(
            max_examples=count if has_input else 5,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        for cases in kinds:
            run_settings(given(case=cases)(send))()
    print(f"{sum(sent.values())} cases: {dict(sorted(statuses.items()))}, {dict(sent)}")
    assert not [status for status in statuses if status >= 500]
    assert len(sent) == 27
    assert {200, 404, 422} <= set(statuses)
    if count == ALL:
        assert sum(sent.values()) >= 2000
        # Each kind of response occurred.
        assert {200, 201, 204, 400, 401, 404, 415, 422} <= set(statuses)
