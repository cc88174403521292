"""What expressions are worth: constants, settings, the environment, dictionaries built step by step."""

from __future__ import annotations

import ast

import pytest
from tests.evidence.trees import scope, tree, value

from verdigris.evidence.values import Known, Unknown

HEAD = "from sqlalchemy.ext.asyncio import create_async_engine\n"


def ways(source, path="app.py", name=""):
    """Return the options of the first call of create_async_engine in a scope, one dictionary a way."""
    inside = scope(source, path, name)
    call = next(call for call in inside.calls if ast.unparse(call.func) == "create_async_engine")
    return [
        ({key: source.evaluator.value(given) for key, given in way.values.items()}, way.open)
        for way in source.evaluator.options(call, inside)
    ]


@pytest.mark.parametrize(
    ("expression", "worth"),
    [
        ("2 * 5 + 1", 11),
        ("-1", -1),
        ("not 0", True),
        ("f'{A}-{3}'", "7-3"),
        ("int('12')", 12),
        ("A if A else 2", None),
        ("{'size': A}['size']", 7),
        ("'postgres://x'.replace('postgres', 'postgresql')", "postgresql://x"),
        ("os.getenv('SIZE', '20')", "20"),
        ("int(os.environ.get('SIZE', 20))", 20),
        ("os.getenv('SIZE') or 30", 30),
        ("[A, 2]", [7, 2]),
    ],
)
def test_an_expression_of_constants_is_worked_out(tmp_path, expression, worth):
    source = tree(tmp_path, {"app.py": "import os, sqlalchemy\nA = 7\n"})

    found = value(source, "app.py", expression)

    assert isinstance(found, Unknown) if worth is None else (isinstance(found, Known) and found.value == worth)


def test_a_variable_of_the_environment_without_a_default_is_unknown_by_name(tmp_path):
    source = tree(tmp_path, {"app.py": "import os, sqlalchemy\n"})

    found = [value(source, "app.py", text) for text in ("os.environ['SIZE']", "os.getenv('SIZE')")]

    assert [each.variable for each in found if isinstance(each, Unknown)] == ["SIZE", "SIZE"]


def test_a_settings_class_gives_its_defaults_and_says_where_they_are(tmp_path):
    source = tree(
        tmp_path,
        {
            "app/config.py": """
            from pydantic import Field
            from pydantic_settings import BaseSettings
            class DB(BaseSettings):
                pool_size: int = Field(default=30, ge=1)
                pre_ping: bool = True
            class Settings(BaseSettings):
                db: DB = DB()
                @property
                def recycle(self) -> int:
                    return 600
            def get_settings() -> Settings:
                return Settings()
            settings = get_settings()
            """,
            "app/db.py": "from app.config import settings  # sqlalchemy",
        },
    )

    assert value(source, "app/db.py", "settings.db.pool_size") == Known(30, "DB.pool_size")
    assert value(source, "app/db.py", "settings.db.pre_ping") == Known(True, "DB.pre_ping")
    assert value(source, "app/db.py", "settings.recycle") == Known(600)


def test_a_name_with_two_values_has_none_that_is_known(tmp_path):
    source = tree(tmp_path, {"app.py": "import sqlalchemy, sys\nif sys.argv:\n    A = 1\nelse:\n    A = 2\n"})

    assert isinstance(value(source, "app.py", "A"), Unknown)


def test_a_value_made_from_itself_ends(tmp_path):
    steps = "\n".join("size = max(size, 2) + size" for _ in range(12))
    source = tree(tmp_path, {"app.py": f"import sqlalchemy\nsize = 5\n{steps}\n"})

    assert isinstance(value(source, "app.py", "size"), Unknown)


def test_options_built_by_update_in_both_branches_are_two_ways(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
import sys
options = {"echo": False}
if sys.argv:
    options.update({"pool_size": 10}, max_overflow=5)
else:
    options |= {"pool_size": 20}
engine = create_async_engine("x", **options)
"""
        },
    )

    assert ways(source) == [
        ({"echo": Known(False), "pool_size": Known(10), "max_overflow": Known(5)}, None),
        ({"echo": Known(False), "pool_size": Known(20)}, None),
    ]


def test_what_happens_to_a_dictionary_after_its_use_does_not_count(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
options = {"pool_size": 5}
engine = create_async_engine("x", **options)
options["pool_size"] = 50
"""
        },
    )

    assert ways(source) == [({"pool_size": Known(5)}, None)]


def test_a_branch_that_returns_leaves_no_way_behind(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
def make(kind):
    options = {}
    if kind == "null":
        options["poolclass"] = 1
        return None
    options["pool_size"] = 7
    return create_async_engine("x", **options)
"""
        },
    )

    assert ways(source, name="make") == [({"pool_size": Known(7)}, None)]


def test_a_key_that_is_taken_away_is_gone(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
options = dict(pool_size=5, echo=True, pool_pre_ping=True)
options.pop("echo", None)
del options["pool_size"]
options.setdefault("pool_pre_ping", False)
engine = create_async_engine("x", **{**options, "pool_recycle": 60})
"""
        },
    )

    assert ways(source) == [({"pool_pre_ping": Known(True), "pool_recycle": Known(60)}, None)]


def test_none_is_filtered_out_where_the_code_does_it(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
given = {"pool_size": None, "pool_recycle": 60}
engine = create_async_engine("x", **{k: v for k, v in given.items() if v is not None})
"""
        },
    )

    assert ways(source) == [({"pool_recycle": Known(60)}, None)]


def test_a_dictionary_from_a_function_a_property_and_self_is_followed(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
def base():
    return {"pool_size": 3}
class Settings:
    @property
    def options(self):
        return {**base(), "pool_recycle": 60}
settings = Settings()
class Database:
    def __init__(self):
        self.options = settings.options
    def open(self):
        return create_async_engine("x", **self.options)
"""
        },
    )

    assert ways(source, name="Database.open") == [({"pool_size": Known(3), "pool_recycle": Known(60)}, None)]


def test_a_dictionary_that_a_function_may_change_is_open(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
def tune(options):
    options["pool_size"] = 3
options = {}
tune(options)
engine = create_async_engine("x", **options)
"""
        },
    )

    assert ways(source) == [({}, "`tune()` may change it")]


def test_a_condition_that_constants_settle_is_no_fork(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
def make(pool_size=None):
    options = {}
    if pool_size is not None:
        options["pool_size"] = pool_size
    return create_async_engine("x", **options)
small = make(3)
plain = make()
"""
        },
    )

    assert {engine.given("pool_size") for engine in source.engines} == {True, False}


def test_what_a_model_dumps_is_unknown(tmp_path):
    source = tree(
        tmp_path,
        {"app.py": HEAD + "from app.config import cfg\nengine = create_async_engine('x', **cfg.db.model_dump())\n"},
    )

    [(known, opened)] = ways(source)

    assert known == {}
    assert opened is not None


def test_options_that_are_given_or_else_none_are_the_given_ones(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": HEAD
            + """
from app.config import cfg
options = dict(cfg.pool) if cfg.pool else {}
engine = create_async_engine("x", **options)
"""
        },
    )

    assert [opened is not None for _, opened in ways(source)] == [True]
