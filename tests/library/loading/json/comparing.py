"""What Pydantic makes of a value, against what SQL printed."""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from hypothesis import HealthCheck, Phase, given, seed, settings
from pydantic import BaseModel, Field, RootModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

#: How many values are made for each kind of column; the long run of `make equivalence` sets more.
EXAMPLES = int(os.environ.get("VERDIGRIS_EXAMPLES", "12"))
LONG = "VERDIGRIS_EXAMPLES" in os.environ
#: What everything is drawn from: printed by a long run, and given to repeat one.
SEED = int(os.environ.get("VERDIGRIS_SEED", random.randrange(10**9) if LONG else 1))

#: A raw control character, which no JSON holds: "read this answer in Python".
REFUSED = "\x01"


@dataclass
class Tally:
    """What a run compared."""

    pairs: int = 0
    equal: int = 0
    #: Refused by SQL and by Pydantic.
    refused: int = 0
    #: Refused by SQL although Pydantic prints it: read in Python, at the price of a second query.
    fallback: int = 0
    #: Read in Python from the start, and made there; and what Pydantic refuses of them, so that no way could make it.
    python: int = 0
    python_refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        shares = f"{self.equal} equal, {self.refused} refused by both, {self.fallback} values that only Python writes"
        planned = f"{self.python} read in Python from the start, {self.python_refused} read there and refused"
        return f"{self.pairs} pairs: {shares}, {planned}"

    def causes(self) -> str:
        """Return why pairs were read in Python, the most frequent causes first."""
        return "\n".join(f"  {count:6} {reason}" for reason, count in self.reasons.most_common())

    def in_python(self, reason: str | None, wanted: list[Any]) -> None:
        """Count the pairs of a model that is read in Python from the start, and what Pydantic makes of each."""
        self.pairs += len(wanted)
        self.python_refused += wanted.count(None)
        self.python += len(wanted) - wanted.count(None)
        self.reasons[re.sub(r"^.*?: |\bE?w\d+\w*", "", str(reason))] += len(wanted)

    def differs(self, got: str | None, want: Any, is_equal: Callable[[], bool]) -> bool:
        """Count a pair that SQL wrote; return whether it is a difference."""
        self.pairs += 1
        if got is not None and REFUSED in got:
            self.refused += want is None
            self.fallback += want is not None
            return False
        equal = is_equal()
        self.equal += equal
        return not equal


def examples(strategy: Any, count: int) -> list[Any]:
    """Return values of a strategy: the same ones for the same seed."""
    found: list[Any] = []

    @seed(SEED)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


class Source:
    """An object with one attribute."""

    def __init__(self, f: Any) -> None:
        self.f = f


def adapter(type_: Any) -> TypeAdapter[Any]:
    """Return a type's adapter as FastAPI makes it: of an Annotated, so that no model's config is the outermost one."""
    return TypeAdapter(Annotated[type_, Field()])


def dumped(adapter: TypeAdapter[Any], source: Any, **options: Any) -> str | None:
    """Return what Pydantic prints of an object, None where it refuses it."""
    try:
        return adapter.dump_json(
            adapter.validate_python(source, from_attributes=True), warnings=False, **options
        ).decode()
    except (ValidationError, PydanticSerializationError):
        return None


def made_of(adapter: TypeAdapter[Any], source: Any) -> Any:
    """Return what Pydantic makes of an object, None where it refuses it."""
    try:
        return adapter.validate_python(source, from_attributes=True)
    except ValidationError:
        return None


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same, of the same types all the way down; NaN is NaN.

    The driver's UUIDs are of a subclass of its own, which Pydantic lets through where it sees them.
    """
    if type(one) is not type(other):
        return isinstance(one, UUID) and isinstance(other, UUID) and one == other
    match one:
        case RootModel():
            return alike(one.root, other.root)
        case BaseModel():
            return one.model_fields_set == other.model_fields_set and alike(vars(one), vars(other))
        case dict():
            return list(one) == list(other) and all(alike(value, other[key]) for key, value in one.items())
        case list() | tuple():
            return len(one) == len(other) and all(map(alike, one, other))
        case float():
            return one == other or (one != one and other != other)  # noqa: PLR0124 - NaN
    return bool(one == other)


async def of_the_orm(db: Any, statement: Any, type_: Any) -> bytes | type[ValidationError]:
    """Return what Pydantic makes of the objects of a statement, each of which loads what is read of it."""

    def read(session: Any) -> bytes | type[ValidationError]:
        result = session.scalars(statement)
        rows = result if result._unique_filter_state is None else result.unique()
        try:
            return adapter(type_).dump_json(adapter(type_).validate_python(rows.all(), from_attributes=True))
        except ValidationError:
            return ValidationError

    async with db.session() as session:
        return await session.run_sync(read)


def field_schema(model: type[BaseModel]) -> tuple[Any, Any]:
    """Return the core schema of the field `f` without what stands around it, and the model's core config."""
    schema: Any = model.__pydantic_core_schema__
    known: dict[str, Any] = {}
    while schema["type"] in {"definitions", "definition-ref"}:
        if schema["type"] == "definitions":
            known |= {each["ref"]: each for each in schema["definitions"]}
            schema = schema["schema"]
        else:
            schema = known[schema["schema_ref"]]
    config = schema.get("config", {})
    schema = schema["schema"]["fields"]["f"]["schema"]
    return known[schema["schema_ref"]] if schema["type"] == "definition-ref" else schema, config


def same(got: str | None, want: str | None, *, as_values: bool = False) -> bool:
    """Whether two JSON texts are the same bytes, or the same values where a kind of column promises no more."""
    return got == want or (as_values and None not in {got, want} and json.loads(got or "") == json.loads(want or ""))
