"""Locations of files: the defaults, and the environment variables that change them."""

import os
import sys
from pathlib import Path

import pytest

from helpers import paths
from helpers.cli import main as cli
from helpers.cli.common import UNAVAILABLE
from helpers.images import samples

MOVED = {
    "LOOKALIKE_CACHE": paths.cache_dir,
    "LOOKALIKE_FIGURES": paths.figures_dir,
    "LOOKALIKE_MIRROR": paths.mirror_dir,
}


@pytest.fixture
def nothing_set(monkeypatch):
    for variable in MOVED:
        monkeypatch.delenv(variable, raising=False)


def test_default_folders_are_in_the_project(nothing_set):
    assert (paths.ROOT / "helpers" / "paths.py").is_file()
    assert paths.cache_dir() == paths.ROOT / "data" / "cache"
    assert paths.figures_dir() == paths.ROOT / "build" / "figures"
    assert paths.committed_figures_dir() == paths.ROOT / "figures"
    assert paths.mirror_dir() is None


@pytest.mark.parametrize("variable", MOVED)
def test_a_variable_moves_its_folder(variable, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, str(tmp_path / "with a space"))
    assert MOVED[variable]() == tmp_path / "with a space"
    assert not (tmp_path / "with a space").exists(), "nothing is created"


@pytest.mark.parametrize("variable", MOVED)
def test_home_and_relative_folders_become_absolute(variable, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, "~/images")
    assert MOVED[variable]() == (Path.home() / "images").resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "here")
    assert MOVED[variable]() == tmp_path.resolve() / "here"


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_counts_as_unset(nothing_set, monkeypatch, value):
    for variable in MOVED:
        monkeypatch.setenv(variable, value)
    assert paths.cache_dir() == paths.ROOT / "data" / "cache"
    assert paths.figures_dir() == paths.ROOT / "build" / "figures"
    assert paths.mirror_dir() is None


@pytest.mark.parametrize("value", ["none", "None", " NONE "])
def test_no_mirror_by_name(monkeypatch, value):
    monkeypatch.setenv("LOOKALIKE_MIRROR", value)
    assert paths.mirror_dir() is None


def test_files_that_ship_do_not_move(monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path))
    assert paths.data_dir() == paths.ROOT / "data"
    assert paths.protocols_dir() == paths.ROOT / "data" / "protocols"


@pytest.fixture
def installed(nothing_set, monkeypatch, tmp_path):
    """An environment in which the package is installed."""
    monkeypatch.setattr(paths, "IN_CHECKOUT", False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: other systems have other cache folders")
def test_an_installed_package_writes_nothing_into_its_own_folder(installed):
    assert paths.cache_dir() == installed / "home" / ".cache" / "lookalike"
    assert paths.figures_dir() == installed / "figures"
    assert paths.data_dir() == Path(paths.__file__).parent / "_data"
    assert not (installed / "home").exists()


def test_an_error_names_what_needs_the_checkout(installed, monkeypatch):
    with pytest.raises(paths.NotInCheckout, match="^The notebooks come with a checkout of the project"):
        paths.checkout("The notebooks")
    with pytest.raises(paths.NotInCheckout, match="images of the sample"):
        samples.photos()
    monkeypatch.setattr(paths, "IN_CHECKOUT", True)
    assert paths.checkout("The notebooks") == paths.ROOT


@pytest.mark.parametrize(
    ("command", "what"), [("notebook 00", "The notebooks"), ("leaderboard", "The measured results")]
)
def test_commands_report_that_they_need_the_checkout(installed, command, what, capsys):
    assert cli.main(command.split()) == UNAVAILABLE
    err = capsys.readouterr().err
    assert err.startswith(f"lookalike {command.split()[0]}: {what} come with a checkout") and err.count("\n") == 1


def test_a_child_process_imports_the_same_library(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert paths.child_environment()["PYTHONPATH"] == f"{paths.ROOT}{os.pathsep}/elsewhere"
    monkeypatch.delenv("PYTHONPATH")
    assert paths.child_environment()["PYTHONPATH"] == str(paths.ROOT)
    monkeypatch.setattr(paths, "IN_CHECKOUT", False)
    assert "PYTHONPATH" not in paths.child_environment()


@pytest.mark.parametrize(
    ("name", "own", "default"), [("TF_CPP_MIN_LOG_LEVEL", "0", "2"), ("TF_ENABLE_ONEDNN_OPTS", "0", "1")]
)
def test_a_variable_of_tensorflow_that_is_set_is_kept(monkeypatch, name, own, default):
    monkeypatch.setenv(name, own)
    paths.set_up_tensorflow()
    assert paths.os.environ[name] == own
    monkeypatch.delenv(name)
    paths.set_up_tensorflow()
    assert paths.os.environ[name] == default


SERVERS = pytest.mark.parametrize("server", ["elasticsearch", "opensearch"])


@SERVERS
@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_server_by_default(server, value, monkeypatch):
    monkeypatch.delenv(f"{server.upper()}_URL", raising=False)
    if value is not None:
        monkeypatch.setenv(f"{server.upper()}_URL", value)
    assert getattr(paths, f"{server}_address")() is None


@SERVERS
@pytest.mark.parametrize("value", ["http://127.0.0.1:9200", " http://127.0.0.1:9200/ "])
def test_the_address_of_a_server(server, value, monkeypatch):
    monkeypatch.setenv(f"{server.upper()}_URL", value)
    assert getattr(paths, f"{server}_address")() == "127.0.0.1:9200"


@SERVERS
@pytest.mark.parametrize("value", ["127.0.0.1:9200", "https://host:9200", "http://", "http://host:9200/name"])
def test_an_invalid_address_is_rejected(server, value, monkeypatch):
    monkeypatch.setenv(f"{server.upper()}_URL", value)
    with pytest.raises(ValueError, match=f"{server.upper()}_URL must be like .*{server}://host"):
        getattr(paths, f"{server}_address")()


@SERVERS
def test_a_password_in_the_address_is_rejected_and_not_printed(server, monkeypatch):
    monkeypatch.setenv(f"{server.upper()}_URL", "http://elastic:secret@host:9200")
    with pytest.raises(ValueError, match="host:9200") as error:
        getattr(paths, f"{server}_address")()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,::1,localhost"),
        ({"no_proxy": ""}, "127.0.0.1,::1,localhost"),
        ({"NO_PROXY": "intern.example, localhost"}, "intern.example,localhost,127.0.0.1,::1"),
        ({"no_proxy": "a.example", "NO_PROXY": "b.example"}, "a.example,127.0.0.1,::1,localhost"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_own_names_are_added_to_the_hosts_without_proxy(before, after, monkeypatch):
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, before.get(variable, ""))
        if variable not in before:
            monkeypatch.delenv(variable)
    for _ in range(2):
        paths.bypass_proxies_on_loopback()
        assert {os.environ["no_proxy"], os.environ["NO_PROXY"]} == {after}
