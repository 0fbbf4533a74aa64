"""Options of ``./run_all.sh test`` and what all tests share."""

import pytest
from hypothesis import settings

from helpers import course, paths

# A slow or busy machine is no reason to fail.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_addoption(parser):
    parser.addoption(
        "--profile", choices=("sample", "full"), default="sample", help="data of the notebooks' smoke runs"
    )
    parser.addoption("--slow", action="store_true", help="only the tests that take long and are else skipped aloud")
    parser.addoption("--only", default=None, help="numbers of the notebooks to test, such as 00,10")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With --jobs, a file's tests share what they make, so they stay in one process; notebooks share nothing."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return nodeid if file.endswith("test_smoke.py") else file

    return ByFile(config, log)


def pytest_collection_modifyitems(config, items):
    """Those marked slow alone, or all others; ``--only`` leaves out the tests of other notebooks."""
    if config.getoption("--slow"):
        _leave_out(config, items, [item for item in items if "slow" not in item.keywords])
    else:
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip("NOT TESTED without --slow: it takes long (CI does it)"))
    if config.getoption("--only") is None:
        return
    wanted = {path.stem for path in course.select(config.getoption("--only"))}
    if not wanted:
        raise pytest.UsageError(f"no notebook matches --only {config.getoption('--only')}")
    others = {path.stem for path in course.select(None)} - wanted
    _leave_out(config, items, [item for item in items if any(f"[{stem}" in item.name for stem in others)])


def _leave_out(config, items, others):
    config.hook.pytest_deselected(items=others)
    gone = set(others)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def profile(pytestconfig):
    """The profile that was asked for; ``full`` needs the data sets."""
    chosen = pytestconfig.getoption("--profile")
    if chosen == "full" and paths.mirror_dir() is None:
        pytest.skip("NOT TESTED: the full profile needs the data sets; set LOOKALIKE_MIRROR to their folder")
    return chosen


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache that nobody else uses."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def fresh_cache(tmp_path_factory):
    """A cache of the module's own: what an earlier run kept there must not answer for code that has changed since."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def resnet50():
    """The real network; its weights are fetched once into the project's cache."""
    from helpers.features.describer import describer
    from helpers.networks.weights import WeightsUnavailable

    try:
        return describer("resnet50")
    except WeightsUnavailable as error:
        pytest.skip(f"NOT TESTED with real weights: {error}")


@pytest.fixture
def mirror():
    """The folder of the data sets; tests of real archives are skipped aloud without it."""
    if paths.mirror_dir() is None:
        pytest.skip("NOT TESTED on the real data sets: set LOOKALIKE_MIRROR to their folder")
    return paths.mirror_dir()
