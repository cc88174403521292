"""Every option of a model's config, and every option of Pydantic's dump: the answer is the same, or none is offered."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel
from sqlalchemy import select
from tests.library.loading.json.models import Customer, Order
from tests.library.loading.json.test_read import by_loading

from verdigris import Database

PAGE = (Path(__file__).resolve().parents[4] / "docs/json-types.md").read_text()
OPTIONS: dict[str, tuple[Any, ...]] = {
    "alias_generator": (to_camel,),
    "allow_inf_nan": (False,),
    "arbitrary_types_allowed": (True,),
    "cache_strings": ("none",),
    "coerce_numbers_to_str": (True,),
    "defer_build": (True,),
    "extra": ("forbid", "ignore", "allow"),
    "field_title_generator": (lambda name, _: name.upper(),),
    "from_attributes": (True,),
    "frozen": (True,),
    "hide_input_in_errors": (True,),
    "ignored_types": ((set,),),
    "json_encoders": ({str: str.upper}, {int: str}),
    "json_schema_extra": ({"x": 1},),
    "json_schema_mode_override": ("serialization",),
    "json_schema_serialization_defaults_required": (True,),
    "loc_by_alias": (False,),
    "model_title_generator": (lambda cls: cls.__name__,),
    "plugin_settings": ({"x": 1},),
    "polymorphic_serialization": (True,),
    "populate_by_name": (True,),
    "protected_namespaces": (("zzz_",),),
    "regex_engine": ("python-re",),
    "revalidate_instances": ("always", "subclass-instances"),
    "schema_generator": (),  # a class that makes other core schemas: read as those say
    "ser_json_bytes": ("base64", "hex"),
    "ser_json_inf_nan": ("strings", "constants"),
    "ser_json_temporal": ("seconds", "milliseconds"),
    "ser_json_timedelta": ("float",),
    "serialize_by_alias": (True, False),
    "str_max_length": (40,),
    "str_min_length": (1,),
    "str_strip_whitespace": (True,),
    "str_to_lower": (True,),
    "str_to_upper": (True,),
    "strict": (True,),
    "title": ("Another",),
    "url_preserve_empty_path": (True,),
    "use_attribute_docstrings": (True,),
    "use_enum_values": (True,),
    "val_json_bytes": ("base64",),
    "val_temporal_unit": ("seconds",),
    "validate_assignment": (True,),
    "validate_by_alias": (False,),
    "validate_by_name": (True,),
    "validate_default": (True,),
    "validate_return": (True,),
    "validation_error_cause": (True,),
}
KNOWN = [name for name in OPTIONS if name in ConfigDict.__annotations__]
#: What `db.json()` takes, of what `dump_json()` takes.
DUMPED = {"by_alias", "exclude_none", "exclude_unset"}


def models(config: dict[str, Any]) -> tuple[Any, ...]:
    """Return a model of orders and one of customers under a config, with most of what a config changes."""
    if config.get("validate_by_alias") is False:
        config = {**config, "validate_by_name": True}

    class LineOut(BaseModel):
        model_config = ConfigDict(**config)

        sku: str
        customer_sku: str = Field("none", validation_alias="sku")
        price: float

    class OrderOut(BaseModel):
        model_config = ConfigDict(**config)

        id: int
        lines: list[LineOut]
        note: str | None
        absent: str = "Absent"
        number: int = 7
        took: timedelta = timedelta(seconds=1.5)
        at_last: float = float("inf")

    class CustomerOut(BaseModel):
        model_config = ConfigDict(**config)

        id: int
        name: str
        email: str | None

    return OrderOut, CustomerOut


def test_no_option_of_a_config_is_missing_here_or_on_the_page():
    assert sorted(ConfigDict.__annotations__.keys() - OPTIONS.keys()) == []
    assert [name for name in OPTIONS if f"`{name}`" not in PAGE and f"`{name}=" not in PAGE] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", KNOWN)
async def test_whatever_the_config_the_answer_is_the_one_of_pydantic(db, name):
    for value in OPTIONS[name]:
        for entity, model in zip((Order, Customer), models({name: value}), strict=True):
            statement = select(entity).order_by(entity.id).limit(40)

            assert (await db.json(statement, list[model])).body == await by_loading(db, statement, list[model]), value
            async with db.session() as session:
                rows = (await session.scalars(db_loaded(statement, entity, model))).all()
                wanted = TypeAdapter(list[model]).validate_python(rows, from_attributes=True)
            assert await db.fetch(statement, list[model]) == wanted, value


def db_loaded(statement: Any, entity: Any, model: Any) -> Any:
    from verdigris import load

    return statement.options(load(entity, model))


async def test_a_default_that_is_validated_is_written_as_what_it_becomes(db):
    class Validated(BaseModel):
        model_config = ConfigDict(validate_default=True, str_to_upper=True)

        id: int
        absent: int = "7"
        word: str = "word"
        always: float = Field(1, validate_default=True)

    statement = select(Order).where(Order.id == 3)

    assert (await db.json(statement, Validated)).body == await by_loading(db, statement, Validated)
    assert (await db.json(statement, Validated)).body == b'{"id":3,"absent":7,"word":"WORD","always":1.0}'


def test_no_option_of_a_dump_is_missing_on_the_page():
    taken = set(inspect.signature(Database.json).parameters) & set(inspect.signature(TypeAdapter.dump_json).parameters)
    others = set(inspect.signature(TypeAdapter.dump_json).parameters) - taken - {"instance"}

    assert taken == {"self", *DUMPED}
    assert sorted(name for name in DUMPED | others if f"`{name}" not in PAGE) == []
