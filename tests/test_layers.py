"""Layers point one way: what a part may load, seen in a fresh interpreter."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "verdigris"
CHECKER = {"checker", "checklist", "cli", "demo", "evidence", "fix", "report"}
APART = {"__init__", "__main__", "__pycache__", "embedded", "pytest_plugin"}
#: The parts of the checker, each on those before it; the demo is one command more.
PARTS = ["evidence", "checklist", "report", "checker", "fix", "cli"]
INDEX = PACKAGE / "evidence" / "source"
#: What each package of the source evidence builds on, imported or asked through the index: what stands above it only.
BUILDS_ON = {
    "reading": set(),
    "engine": {"reading"},
    "models": {"reading"},
    "fastapi": {"reading", "models"},
    "session": {"reading", "engine", "models", "fastapi"},
    "statements": {"reading", "models", "session"},
    "transactions": {"reading", "engine", "models", "fastapi", "session"},
    "concurrency": {"reading", "fastapi", "session"},
    "testing": {"reading", "engine"},
    "flow": {"reading", "models", "fastapi", "statements"},
}
#: What each part of the library imports when it is imported, of those above it only.
STANDS_ON = {
    "errors": set(),
    "performance": set(),
    "engine": {"errors", "performance"},
    "lean": {"errors", "engine"},
    "session": {"errors", "engine", "lean"},
    "concurrency": {"errors", "session"},
    "models": {"errors", "lean"},
    "loading": {"errors", "lean"},
    "bulk": {"errors", "performance"},
    "database": {"errors", "performance", "engine", "lean", "session", "concurrency", "loading"},
    "fastapi": {"errors", "performance", "lean", "concurrency", "loading", "database"},
    "testing": {"errors", "performance", "lean", "database"},
}
LIBRARY = sorted({path.stem for path in PACKAGE.iterdir() if path.suffix in {"", ".py"}} - CHECKER - APART)


def loaded_by(*commands, flags=("-S",)):
    """Run the commands and return all modules that were loaded meanwhile; -S hides every installed package."""
    code = "import sys, json\nbefore = set(sys.modules)\n" + "\n".join(commands)
    code += "\nprint(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.strip().splitlines()[-1])


def foreign(modules):
    """Return the modules that are neither ours nor the standard library's."""
    known = {*sys.stdlib_module_names, "verdigris", "__main__"}
    return sorted(name for name in modules if name.split(".")[0] not in known)


def parts(modules):
    return {name.split(".")[1] for name in modules if name.startswith("verdigris.")}


def test_importing_the_package_loads_none_of_its_parts():
    modules = loaded_by("import verdigris", flags=())

    assert parts(modules) == set()
    assert foreign(modules) == []


def test_the_library_loads_no_part_of_the_checker():
    modules = loaded_by("from verdigris import Base, Database, bulk, errors, load\nimport verdigris.fastapi", flags=())

    assert parts(modules) & CHECKER == set()


def test_the_embedded_server_loads_nothing_but_itself():
    modules = loaded_by("import verdigris.embedded")

    assert parts(modules) == {"embedded"}
    assert foreign(modules) == []


def test_the_static_check_runs_without_a_single_installed_package():
    modules = loaded_by(
        "from verdigris.cli import main",
        "try: code = main(['check', 'examples/shop', '--evidence', 'source', '--no-cache'])",
        "except SystemExit as left: code = left.code",
        "assert code in (0, 1), code",
    )

    assert foreign(modules) == []
    assert parts(modules) <= CHECKER - {"demo"}


def test_the_static_check_leaves_installed_packages_alone():
    modules = loaded_by(
        "from verdigris.cli import main",
        "try: main(['check', 'examples/shop', '--evidence', 'source', '--no-cache', '--output-format', 'json'])",
        "except SystemExit: pass",
        flags=(),
    )

    assert foreign(modules) == []


@pytest.mark.parametrize("part", LIBRARY)
def test_no_module_of_the_library_names_the_checker(part):
    files = [PACKAGE / f"{part}.py", *(PACKAGE / part).rglob("*.py")]
    named = {name for file in files if file.exists() for name in imports_of(file)}

    assert {name for name in named if name.startswith(tuple(f"verdigris.{each}" for each in CHECKER))} == set()


def imports_of(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("part", STANDS_ON)
def test_the_parts_of_the_library_stand_on_those_above_them_only(part):
    files = [path for path in (PACKAGE / f"{part}.py", *(PACKAGE / part).rglob("*.py")) if path.exists()]

    used = {file.name: parts(imported_at_once(file)) & set(STANDS_ON) - {part} for file in files}

    assert set().union(*used.values()) == STANDS_ON[part], used
    assert STANDS_ON[part] <= set(list(STANDS_ON)[: list(STANDS_ON).index(part)])


def test_every_part_of_the_library_is_among_them_or_private():
    assert {part for part in LIBRARY if not part.startswith("_")} == set(STANDS_ON)


def imported_at_once(file):
    """Return what importing a file imports: not what functions import when they are called, nor type checkers."""
    return {
        node.module for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom) and node.module
    }


@pytest.mark.parametrize("part", PARTS)
def test_the_parts_of_the_checker_build_on_those_before_them_only(part):
    above = set(PARTS[PARTS.index(part) + 1 :])

    used = {file.name: parts(imports_of(file)) & above for file in (PACKAGE / part).rglob("*.py")}

    assert set().union(*used.values()) == set(), used


def test_every_module_of_the_source_evidence_is_in_a_package():
    assert {path.name for path in INDEX.iterdir()} - {"__pycache__"} == {"__init__.py", *BUILDS_ON}


@pytest.mark.parametrize("package", BUILDS_ON)
def test_the_packages_of_the_source_evidence_build_on_those_above_them_only(package):
    above = set(list(BUILDS_ON)[: list(BUILDS_ON).index(package)])

    used = {file.name: used_by(file) - {package} for file in (INDEX / package).rglob("*.py")}

    assert set().union(*used.values()) == BUILDS_ON[package], used
    assert BUILDS_ON[package] <= above


def used_by(file):
    """Return the packages of the source evidence that a file imports, or asks through a view of the index."""
    start = "verdigris.evidence.source."
    imported = {name.removeprefix(start).split(".")[0] for name in imports_of(file) if name.startswith(start)}
    asked = {
        package
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] == "source"
        for package in VIEWS.get(node.attr, ())
    }
    return (imported & set(BUILDS_ON)) | asked


def views():
    """Return the packages that each view of the index comes from: the classes it makes, and the views it reads."""
    tree = ast.parse((INDEX / "__init__.py").read_text("utf-8"))
    of = {
        alias.asname or alias.name: node.module.split(".")[3]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("verdigris.evidence.source.")
        for alias in node.names
    }
    index = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Source")
    start, *methods = (node for node in index.body if isinstance(node, ast.FunctionDef))
    found = {node.targets[0].attr: {of[node.value.func.id]} for node in start.body if isinstance(node.value, ast.Call)}
    for _ in methods:  # a view may read another that is defined below it
        for method in methods:
            nodes = [node for statement in method.body for node in ast.walk(statement)]
            made = {of[node.id] for node in nodes if isinstance(node, ast.Name) and node.id in of}
            read = (found.get(node.attr, set()) for node in nodes if isinstance(node, ast.Attribute))
            found[method.name] = made.union(*read)
    return found


VIEWS = views()


def test_nothing_is_shielded_that_nobody_waits_for():
    """A unit of work in a bare `asyncio.shield()` leaks its connection when it is cancelled."""
    shielding = {
        str(path.relative_to(PACKAGE))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "shield"
    }

    assert shielding == {"session/effects.py", "embedded/__init__.py"}  # in tasks of `background()`; a server's start
