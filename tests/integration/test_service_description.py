"""The service against its own OpenAPI description: thousands of requests made up from it, right ones and wrong ones."""

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
#: Of each operation that takes anything and of each kind: right, right and of something that is there, and wrong.
CASES = 75
WANTED = 2000


@pytest.fixture(scope="module")
def engine():
    photos = samples.photos()
    return Engine("hsv-histogram").fit(photos.subset(range(0, len(photos), 5)))


@pytest.fixture(scope="module")
def schema(engine, tmp_path_factory):
    # Seconds that whoever leaves this out need not wait for.
    import schemathesis
    from schemathesis.config import PositiveDataAcceptanceConfig

    folder = engine.save(tmp_path_factory.mktemp("described") / "own.index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        app = create_app(Settings(folder=folder, api_key=KEY, hosts=("testserver",)))
        config = schemathesis.Config()
        checks = config.projects.default.checks
        # A text fits the description of a file and is no image, four fractions that of a crop that leads out of it.
        checks.positive_data_acceptance = PositiveDataAcceptanceConfig(
            expected_statuses=["2xx", "304", "400", "403", "404", "415", "422"]
        )
        schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
        yield schema
        schemathesis.python.asgi.shutdown_lifespans()


def test_what_is_extracted_is_what_happens(schema, engine):
    from schemathesis import GenerationMode

    images = [path.read_bytes() for path in engine.gallery.paths[:20]]
    vectors = [to_text(vector) for vector in engine.index.vectors(range(20))]
    statuses, sent = Counter(), Counter()

    def real(case, chance):
        """Something that is there, more often than chance would hit it."""
        if isinstance(case.path_parameters.get("id"), int):
            case.path_parameters["id"] %= 80
        if isinstance(case.body, dict) and "image" in case.body:
            case.body["image"] = images[chance % 20]
        if isinstance(case.body, dict) and "vector" in case.body:
            case.body["vector"] = vectors[chance % 20]
        return case

    def ask(case):
        result = case.call_and_validate(headers={"X-API-Key": KEY})
        statuses[result.status_code] += 1
        sent[f"{case.method} {case.operation.path}"] += 1

    for found in schema.get_all_operations():
        operation = found.ok()
        right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        takes = bool(list(operation.iter_parameters()) or operation.body)
        kinds = [right]
        if takes:
            wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
            kinds += [st.builds(real, right, st.integers(0, 99)), wrong]
        pace = settings(
            max_examples=CASES if takes else 5,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        for cases in kinds:
            pace(given(case=cases)(ask))()
    print(f"{sum(sent.values())} cases: {dict(sorted(statuses.items()))}, {dict(sent)}")
    assert sum(sent.values()) >= WANTED
    assert not [status for status in statuses if status >= 500]
    # Each kind was reached, so that the checks had something to say about it.
    assert {200, 201, 204, 400, 401, 404, 415, 422} <= set(statuses)
    assert len(sent) == 13
