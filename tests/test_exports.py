"""The public names: few, written down here, and each of them importable."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import verdigris

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "verdigris": {
        "AsyncSession",
        "Base",
        "Database",
        "Retry",
        "__version__",
        "after_commit",
        "bulk",
        "errors",
        "explain_plan",
        "load",
    },
    "verdigris.embedded": {
        "EmbeddedError",
        "EmbeddedServer",
        "Installation",
        "Machine",
        "Provider",
        "Server",
        "Wheel",
        "server",
    },
    "verdigris.fastapi": {"ReadRouter", "Route", "install", "retrying"},
    "verdigris.errors": {
        "DRIVER_TEXTS",
        "OUTCOME_UNKNOWN",
        "SQLSTATES",
        "UNAVAILABLE",
        "UNCLASSIFIED",
        "CommitRefusedError",
        "ConfigurationError",
        "DatabaseUnavailableError",
        "Fault",
        "NotFoundError",
        "OutcomeUnknownError",
        "PoolExhaustedError",
        "PositionError",
        "ReadOnlyError",
        "RetryLevel",
        "SessionClosedError",
        "SessionSharedError",
        "SessionStateError",
        "ShuttingDownError",
        "StandbyError",
        "StatementTimeoutError",
        "TransactionLostError",
        "UnflushedError",
        "VerdigrisError",
        "classify",
        "fault_of",
        "sqlstate_of",
    },
    "verdigris.bulk": {"Chunk", "Inserted", "Position", "insert", "position"},
    "verdigris.loading": {"DEPTH", "JSONRead", "Plan", "Step", "explain_plan", "load", "plan"},
    "verdigris.models": {"NAMING_CONVENTION", "Base", "Guarded", "guard"},
    "verdigris.testing": {
        "MARK",
        "Databases",
        "QueryLog",
        "Sandbox",
        "SandboxBlockedError",
        "StatementCountError",
        "refuse_unless_test",
        "standing_in",
    },
    "verdigris.performance": {
        "Explained",
        "PoolStatus",
        "Queries",
        "Query",
        "Site",
        "instrument",
        "measured",
    },
    "verdigris.performance.exporters": {
        "CONTENT_TYPE",
        "PrometheusCollector",
        "observe_with_opentelemetry",
        "prometheus_text",
    },
}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_modules_public_names_are_the_ones_written_here(module):
    found = importlib.import_module(module)

    assert set(found.__all__) == PUBLIC[module]
    assert {name for name in found.__all__ if getattr(found, name, None) is None} == set()


def test_dir_offers_the_public_names_before_they_are_loaded():
    assert PUBLIC["verdigris"] <= set(dir(verdigris))


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Databse'"):
        verdigris.Databse  # noqa: B018 - reading it is the test


def test_every_public_name_says_what_it_promises():
    undocumented = [
        f"{module}.{name}"
        for module, names in PUBLIC.items()
        for name in names
        if has_docstring(found := getattr(importlib.import_module(module), name)) and not (found.__doc__ or "").strip()
    ]

    assert undocumented == []


def has_docstring(found):
    """Whether it is a class, a function or a module; a constant has that of its class."""
    return inspect.isclass(found) or inspect.isroutine(found) or inspect.ismodule(found)


def test_the_version_is_written_once_and_in_the_changelog():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["dynamic"] == ["version"]
    assert re.search(
        rf"^## (Unreleased|{re.escape(verdigris.__version__)})", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_the_base_install_depends_on_nothing():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["dependencies"] == []


def test_the_oldest_versions_that_are_promised_are_versions_that_the_tests_run_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = dict(
        re.findall(r"([a-z]+)(?:\[\w+\])?>=([\d.]+)", " ".join(project["optional-dependencies"]["fastapi"]))
    )
    pins = "\n".join((ROOT / name).read_text() for name in ("constraints-older.txt", "constraints.txt"))

    tested = {name: re.search(rf"^{name}==([\d.]+)", pins, re.MULTILINE)[1] for name in promised}

    assert {name: f"{version}.0"[: len(tested[name])] for name, version in promised.items()} == tested


def test_the_commands_and_the_plugin_that_the_package_announces_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    announced = [*project["scripts"].values(), *project["entry-points"]["pytest11"].values()]

    for name in announced:
        module, _, attribute = name.partition(":")
        found = importlib.import_module(module)
        assert not attribute or callable(getattr(found, attribute))
