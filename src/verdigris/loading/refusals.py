"""Pairs that can't be: what is wrong with them, in the reader's own names, and what to write instead."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from verdigris.errors import ConfigurationError
from verdigris.loading.attributes import Relation
from verdigris.loading.naming import dotted

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapper, MapperProperty

    from verdigris.loading.attributes import Touched
    from verdigris.loading.schema import Field

_PAGE = "loading/all-loaded"
_UNLOADABLE = frozenset({"dynamic", "write_only"})
_FORMS = {"many": "a list", "dict": "a dict"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why no row can ever fill a field."""

    what: str
    why: str
    do: tuple[str, ...]

    def error(self, mapper: Mapper[Any], models: tuple[type, ...]) -> ConfigurationError:
        """Return the error that names the entity, all models that were asked for, and the first that does not fit."""
        wanted = " or a ".join(model.__name__ for model in models)
        text = f"No {mapper.class_.__name__} can become a {wanted}: {self.what}."
        return ConfigurationError(text, why=self.why, do=self.do, page=_PAGE)


def not_a_mapped_class(entity: object, name: str) -> ConfigurationError:
    """Return the error for a first argument that is no entity."""
    return ConfigurationError(
        f"load({getattr(entity, '__name__', entity)}, {name}): the first argument is not a mapped class.",
        why="The option is built from the class's relationships.",
        do=(f"load(Order, {name})   # class Order(Base): ...",),
        page=_PAGE,
    )


def not_a_model(entity: str, name: str) -> ConfigurationError:
    """Return the error for a second argument that has no fields."""
    return ConfigurationError(
        f"load({entity}, {name}): {name} is not a Pydantic model.",
        why="The relationships to load are read from the fields of a response model.",
        do=(f"class {entity}Out(BaseModel): ...", f"load({entity}, {entity}Out)"),
        page=_PAGE,
    )


def missing(mapper: Mapper[Any], each: Field) -> Problem:
    """Return the problem of a required field that the entity has nothing for."""
    entity, wanted = mapper.class_.__name__, " or ".join(".".join(path) for path in each.sources)
    near = difflib.get_close_matches(each.sources[0][0], list(mapper.all_orm_descriptors.keys()), n=1)
    fix = f'{each.name}: ... = Field(validation_alias="{near[0]}")' if near else f"{each.name}: ... = None"
    return Problem(
        f"{each} reads {entity}.{wanted}, which does not exist",
        "The field is required, so Pydantic would refuse every row.",
        (f"{fix}   # in {each.model.__name__}", f"or give {entity} an attribute or a property of that name"),
    )


def mismatch(found: tuple[Touched, ...], each: Field) -> Problem | None:
    """Return the problem of a field that asks for one where there are many, for a dict where there is a list, etc."""
    for item in found:
        if not isinstance(item, Relation) or item.path or not item.plain or each.form is None:
            continue
        has = form_of(item)
        if has == each.form:
            continue
        model = each.models[0].__name__
        is_ = _FORMS[has] if "one" not in {has, each.form} else "a collection"
        if has == "one":
            is_ = f"one {item.prop.mapper.class_.__name__}"
        asks = _FORMS.get(each.form, f"one {model}") if has != "one" else f"{_FORMS[each.form]} of {model}"
        write = {"one": model, "many": f"list[{model}]", "dict": f"dict[str, {model}]"}[has]
        return Problem(
            f"{dotted(item.prop)} is {is_}, {each} asks for {asks}",
            "Pydantic would refuse every row.",
            (f"{each.name}: {write}   # in {each.model.__name__}",),
        )
    return None


def form_of(item: Relation) -> str:
    """Return whether a relationship is one object, a collection or a dict."""
    if not item.prop.uselist:
        return "one"
    make: Any = item.prop.collection_class
    return "dict" if callable(make) and isinstance(make(), dict) else "many"


def refuse_unloadable(item: Relation, field: str) -> None:
    """Raise for a relationship that no loader option can load."""
    prop, owner = item.prop, item.owner.class_.__name__
    if prop.lazy not in _UNLOADABLE:
        return
    raise ConfigurationError(
        f"{field} reads {owner}.{prop.key}, which is lazy={prop.lazy!r}.",
        why="Such a collection is never loaded as a whole, and no loader option can ask for it.",
        do=(
            f"leave {field} out and select the rows you show:",
            f"(await session.scalars({owner.lower()}.{prop.key}.select().limit(20))).all()",
        ),
        page=_PAGE,
    )


def endless(field: str, back: MapperProperty[Any], prop: MapperProperty[Any]) -> ConfigurationError:
    """Return the error for there and back again with the same schemas: each object would contain itself."""
    return ConfigurationError(
        f"{field} leads back where it came from with the same model: {dotted(back)}, then {dotted(prop)}.",
        why="Every value would contain itself; Pydantic refuses such a value, whatever is loaded.",
        do=(f"give {dotted(prop)} a model without the way back, or leave {field} out",),
        page=_PAGE,
    )
