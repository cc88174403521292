"""What names mean: imports in every spelling, re-exports, stars, shadows, branches."""

from __future__ import annotations

import pytest
from tests.evidence.trees import meaning, scope, tree

from verdigris.evidence.source.reading.modules import Module, Scope
from verdigris.evidence.source.reading.names import Assigned, External

MAKER = External("sqlalchemy.ext.asyncio.create_async_engine")


@pytest.mark.parametrize(
    ("imported", "used"),
    [
        ("from sqlalchemy.ext.asyncio import create_async_engine", "create_async_engine"),
        ("from sqlalchemy.ext.asyncio import create_async_engine as make", "make"),
        ("import sqlalchemy.ext.asyncio", "sqlalchemy.ext.asyncio.create_async_engine"),
        ("import sqlalchemy.ext.asyncio as sa", "sa.create_async_engine"),
        ("from sqlalchemy.ext import asyncio as sa", "sa.create_async_engine"),
        ("from sqlalchemy.ext import asyncio", "asyncio.create_async_engine"),
    ],
)
def test_a_name_from_outside_is_known_however_it_is_imported(tmp_path, imported, used):
    source = tree(tmp_path, {"app.py": imported})

    assert meaning(source, "app.py", used) == MAKER


def test_an_alias_by_assignment_is_followed(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": """
            import sqlalchemy.ext.asyncio as sa
            make = sa.create_async_engine
            """
        },
    )

    assert meaning(source, "app.py", "make") == MAKER


def test_a_re_export_is_followed_through_packages_and_relative_imports(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/__init__.py": "from .db import *  # sqlalchemy",
            "app/db/__init__.py": "from ..kit.postgres import create as create_engine  # sqlalchemy",
            "app/kit/postgres.py": "from sqlalchemy.ext.asyncio import create_async_engine as create",
            "app/main.py": "from app import create_engine  # sqlalchemy",
        },
    )

    assert meaning(source, "app/main.py", "create_engine") == MAKER


def test_a_star_import_gives_what_the_other_module_binds(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/models.py": "from sqlalchemy.orm import DeclarativeBase\nclass Base(DeclarativeBase): ...",
            "app/main.py": "from app.models import *  # sqlalchemy",
        },
    )

    found = meaning(source, "app/main.py", "Base")

    assert isinstance(found, Scope)
    assert found.key == "app/models.py:Base"


def test_an_import_for_type_checkers_only_counts(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": """
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from sqlalchemy.ext.asyncio import AsyncSession

            def f(session: "AsyncSession") -> None: ...
            """
        },
    )

    assert meaning(source, "app.py", "AsyncSession") == External("sqlalchemy.ext.asyncio.AsyncSession")


def test_the_fallback_of_a_missing_import_is_no_second_meaning(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": """
            try:
                from sqlalchemy.ext.asyncio import create_async_engine
            except ImportError:
                create_async_engine = None
            """
        },
    )

    assert meaning(source, "app.py", "create_async_engine") == MAKER


def test_a_wrapper_of_the_same_name_is_the_wrapper(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/db.py": """
            from sqlalchemy.ext.asyncio import create_async_engine as _create_async_engine

            def create_async_engine(name: str):
                return _create_async_engine("postgresql+asyncpg://localhost/shop")
            """,
            "app/main.py": "from app.db import create_async_engine  # sqlalchemy",
        },
    )

    assert meaning(source, "app/main.py", "create_async_engine") is scope(source, "app/db.py", "create_async_engine")


def test_a_local_module_at_the_root_hides_the_installed_package(tmp_path):
    source = tree(
        tmp_path,
        {
            "fastapi.py": "class FastAPI: ...",
            "app.py": "from fastapi import FastAPI",
        },
    )

    found = meaning(source, "app.py", "FastAPI")

    assert isinstance(found, Scope)
    assert found.module.path == "fastapi.py"


def test_a_module_inside_a_package_does_not_hide_the_installed_one(tmp_path):
    source = tree(
        tmp_path,
        {
            "shop/__init__.py": "",
            "shop/fastapi.py": "from fastapi import FastAPI",
            "shop/main.py": "from fastapi import FastAPI",
        },
    )

    assert meaning(source, "shop/main.py", "FastAPI") == External("fastapi.FastAPI")
    assert meaning(source, "shop/fastapi.py", "FastAPI") == External("fastapi.FastAPI")


def test_a_checked_directory_may_itself_be_the_package(tmp_path):
    root = tmp_path / "shop"
    source = tree(
        root,
        {
            "__init__.py": "",
            "db.py": "from sqlalchemy.ext.asyncio import create_async_engine as make",
            "main.py": "from shop.db import make  # sqlalchemy",
        },
    )

    assert meaning(source, "main.py", "make") == MAKER


def test_a_module_of_two_services_is_the_nearer_one(tmp_path):
    source = tree(
        tmp_path,
        {
            "orders/app/db.py": "from sqlalchemy.ext.asyncio import create_async_engine as make",
            "orders/app/main.py": "from app.db import make  # sqlalchemy",
            "users/app/db.py": "from sqlalchemy import create_engine as make",
            "users/app/main.py": "from app.db import make  # sqlalchemy",
        },
    )

    assert meaning(source, "orders/app/main.py", "make") == MAKER
    assert meaning(source, "users/app/main.py", "make") == External("sqlalchemy.create_engine")


def test_a_module_without_a_word_of_the_field_is_read_when_another_imports_it(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/numbers.py": "SIZE = 20",
            "app/main.py": "from sqlalchemy import text\nfrom app.numbers import SIZE",
        },
    )

    assert source.files.irrelevant == ["app/numbers.py"]
    assert isinstance(meaning(source, "app/main.py", "SIZE"), Assigned)


def test_a_class_body_is_not_seen_from_its_methods(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": """
            from sqlalchemy import text as make
            class A:
                make = 1
                def f(self): ...
            """
        },
    )

    assert meaning(source, "app.py", "make", "A.f") == External("sqlalchemy.text")
    assert isinstance(meaning(source, "app.py", "make", "A"), Assigned)


def test_what_global_assigns_belongs_to_the_module(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": """
            from sqlalchemy.ext.asyncio import create_async_engine
            engine = None

            def start(url: str) -> None:
                global engine
                engine = create_async_engine(url)

            def current():
                return engine
            """
        },
    )
    current = scope(source, "app.py", "current")

    produced = source.types.produced(current)

    assert produced == External("sqlalchemy.ext.asyncio.AsyncEngine")
    assert "engine" not in scope(source, "app.py", "start").bindings


def test_names_in_a_circle_mean_nothing(tmp_path):
    source = tree(
        tmp_path,
        {
            "a.py": "from b import x  # sqlalchemy",
            "b.py": "from a import x  # sqlalchemy",
        },
    )

    assert meaning(source, "a.py", "x") is None


def test_a_submodule_is_a_member_of_its_package(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/__init__.py": "",
            "app/db.py": "from sqlalchemy import text",
            "main.py": "import app.db  # sqlalchemy",
        },
    )

    assert isinstance(meaning(source, "main.py", "app.db"), Module)
    assert meaning(source, "main.py", "app.db.text") == External("sqlalchemy.text")


def test_columns_are_counted_in_characters_and_lines_as_the_parser_does(tmp_path):
    code = 'first = 1  # sqlalchemy\n\x0c\nsecond = "данные 數據"; third = f("база")\n'
    source = tree(tmp_path, {"app.py": code})
    module = source.names.by_path["app.py"]
    statement = module.file.tree.body[-1]

    place = module.place(statement)

    assert module.file.lines[place.line - 1][place.column : place.end_column] == 'third = f("база")'
