"""The pure function behind `load`: entity and schema in, plan out."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from sqlalchemy import and_, inspect
from sqlalchemy.orm import Mapper, MapperProperty, RelationshipDirection

from verdigris.errors import ConfigurationError
from verdigris.loading import schema as shape
from verdigris.loading.attributes import Deferred, Part, Relation, Touched, named, touched
from verdigris.loading.values import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from sqlalchemy.orm import RelationshipProperty

#: How often a model may come along one path, where models contain each other in a circle.
DEPTH = 3
_UNLOADABLE = frozenset({"dynamic", "write_only"})


def plan(entity: type, schema: Any, *, depth: int = DEPTH) -> Plan:
    """Return what `schema` reads from `entity` and how it is loaded, without touching a database.

    The relationships are those that the schema's fields name: by field name, alias, validation alias or alias path,
    through optional values, lists and unions, inherited fields included; also those that a property, a hybrid property
    or an association proxy of the entity reads on a field's behalf.
    """
    mapper: Any = inspect(entity, raiseerr=False)
    name = getattr(schema, "__name__", str(schema))
    if not isinstance(mapper, Mapper):
        raise ConfigurationError(
            f"load({getattr(entity, '__name__', entity)}, {name}): the first argument is not a mapped class.",
            why="The option is built from the class's relationships.",
            do=(f"load(Order, {name})   # class Order(Base): ...",),
            page="loading/all-loaded",
        )
    schemas = shape.models(schema)
    if not schemas:
        raise ConfigurationError(
            f"load({entity.__name__}, {name}): {name} is not a Pydantic model.",
            why="The relationships to load are read from the fields of a response model.",
            do=(f"class {entity.__name__}Out(BaseModel): ...", f"load({entity.__name__}, {entity.__name__}Out)"),
            page="loading/all-loaded",
        )
    return _Planner(depth).plan(_Target(mapper, schemas))


@dataclass(frozen=True, slots=True)
class _Target:
    """What is asked of one entity: schemas to fill, paths and names to read; and how one came here."""

    mapper: Mapper[Any]
    schemas: tuple[type[BaseModel], ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()
    names: frozenset[str] = frozenset()
    via: RelationshipProperty[Any] | None = None

    def same(self, other: _Target) -> bool:
        return replace(self, via=None) == replace(other, via=None)


@dataclass(slots=True)
class _Need:
    """A relationship that is read, with all that is read of its other side."""

    relation: Relation
    fields: list[str] = field(default_factory=list)
    schemas: dict[type[BaseModel], None] = field(default_factory=dict)
    paths: dict[tuple[str, ...], None] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    def add(self, item: Relation, label: str, models: tuple[type[BaseModel], ...]) -> None:
        self.fields.append(label)
        self.schemas.update(dict.fromkeys(models))
        self.names |= item.names
        if item.path:
            self.paths[item.path] = None

    @property
    def name(self) -> str:
        return f"{self.relation.owner.class_.__name__}.{self.relation.prop.key}"

    @property
    def target(self) -> _Target:
        prop = self.relation.prop
        return _Target(prop.mapper, tuple(self.schemas), tuple(self.paths), self.names, prop)


@dataclass(slots=True)
class _Found:
    """All that is read of one entity."""

    needs: dict[tuple[Mapper[Any], str], _Need] = field(default_factory=dict)
    deferred: dict[tuple[type, str], None] = field(default_factory=dict)
    parts: dict[type, None] = field(default_factory=dict)

    def add(self, item: Touched, label: str, models: tuple[type[BaseModel], ...]) -> None:
        match item:
            case Part(owner):
                self.parts[owner.class_] = None
            case Deferred(owner, name):
                self.deferred[owner.class_, name] = None
            case Relation(owner, prop):
                self.needs.setdefault((owner, prop.key), _Need(item)).add(item, label, models)


class _Planner:
    def __init__(self, depth: int) -> None:
        self.depth = depth

    def plan(self, target: _Target, above: tuple[_Target, ...] = ()) -> Plan:
        found = _Found()
        for label, models, items in self._read(target):
            for item in items:
                found.add(item, label, models)
        needs = list(found.needs.values())
        again = [need for need in needs if need.target.same(target)]
        steps = [self._step(need, target, (*above, target), alone=again == [need]) for need in needs]
        return Plan(
            entity=target.mapper.class_,
            schemas=target.schemas,
            steps=tuple(step for step in steps if step is not None),
            undeferred=tuple(found.deferred),
            parts=tuple(found.parts),
            bounded=tuple(need.name for need, step in zip(needs, steps, strict=True) if step is None),
        )

    def _read(self, target: _Target) -> Iterator[tuple[str, tuple[type[BaseModel], ...], tuple[Touched, ...]]]:
        """Yield what fields, paths and names read: a label, the models for the other side, what is touched."""
        for model in target.schemas:
            for each in shape.fields(model):
                found = _source(target.mapper, each, alone=len(target.schemas) == 1)
                for item in found:
                    if isinstance(item, Relation):
                        _refuse_mismatch(item, each)
                plain = any(isinstance(item, Relation) and not item.path and not item.names for item in found)
                yield str(each), each.models if plain else (), found
        for path in target.paths:
            yield ".".join(path), (), touched(target.mapper, path) or ()
        if target.names:
            yield "a property", (), tuple(named(target.mapper, target.names))

    def _step(self, need: _Need, here: _Target, above: tuple[_Target, ...], *, alone: bool) -> Step | None:
        prop, target = need.relation.prop, need.target
        _refuse_unloadable(need)
        _refuse_endless(need, here, above)
        many = bool(prop.uselist)
        label = ", ".join(dict.fromkeys(need.fields))
        owner = need.relation.owner.class_
        if alone and target.same(here):
            return Step(owner, prop.key, label, "selectin", innerjoin=False, plan=None)
        if sum(target.same(each) for each in above) >= self.depth:
            return None
        inner = not many and _always_there(prop)
        strategy: Literal["selectin", "joined"] = "selectin" if many else "joined"
        return Step(owner, prop.key, label, strategy, innerjoin=inner, plan=self.plan(target, above))


def _source(mapper: Mapper[Any], each: shape.Field, *, alone: bool) -> tuple[Touched, ...]:
    """Return what a field's attribute touches: of the first of its sources that the entity has."""
    for path in each.sources:
        found = touched(mapper, path)
        if found is not None:
            return found
    if each.required and alone:
        _refuse_missing(mapper, each)
    return ()


def _always_there(prop: RelationshipProperty[Any]) -> bool:
    """Whether each row has its counterpart: a plain many-to-one whose foreign key is not nullable."""
    return (
        prop.direction is RelationshipDirection.MANYTOONE
        and not prop.mapper.inherits
        and all(column.foreign_keys and not column.nullable for column in prop.local_columns)
        and prop.primaryjoin.compare(and_(*(local == remote for local, remote in prop.local_remote_pairs or ())))
    )


def _refuse_missing(mapper: Mapper[Any], each: shape.Field) -> NoReturn:
    entity, wanted = mapper.class_.__name__, " or ".join(".".join(path) for path in each.sources)
    near = difflib.get_close_matches(each.sources[0][0], list(mapper.all_orm_descriptors.keys()), n=1)
    fix = f'{each.name}: ... = Field(validation_alias="{near[0]}")' if near else f"{each.name}: ... = None"
    raise ConfigurationError(
        f"No {entity} can become a {each.model.__name__}: {each} reads {entity}.{wanted}, which does not exist.",
        why="The field is required, so Pydantic would refuse every row.",
        do=(f"{fix}   # in {each.model.__name__}", f"or give {entity} an attribute or a property of that name"),
        page="loading/all-loaded",
    )


def _refuse_mismatch(item: Relation, each: shape.Field) -> None:
    many, form = bool(item.prop.uselist), each.form
    if item.path or item.names or form is None or many == (form == "many"):
        return
    owner, model = item.owner.class_.__name__, each.models[0].__name__
    other = item.prop.mapper.class_.__name__
    is_, asks = ("a collection", f"one {model}") if many else (f"one {other}", "a collection")
    raise ConfigurationError(
        f"No {owner} can become a {each.model.__name__}: {owner}.{item.prop.key} is {is_}, {each} asks for {asks}.",
        why="Pydantic would refuse every row.",
        do=(f"{each.name}: {f'list[{model}]' if many else model}   # in {each.model.__name__}",),
        page="loading/all-loaded",
    )


def _refuse_unloadable(need: _Need) -> None:
    prop, owner = need.relation.prop, need.relation.owner.class_.__name__
    if prop.lazy not in _UNLOADABLE:
        return
    raise ConfigurationError(
        f"{need.fields[0]} reads {owner}.{prop.key}, which is lazy={prop.lazy!r}.",
        why="Such a collection is never loaded as a whole, and no loader option can ask for it.",
        do=(
            f"leave {need.fields[0]} out and select the rows you show:",
            f"(await session.scalars({owner.lower()}.{prop.key}.select().limit(20))).all()",
        ),
        page="loading/all-loaded",
    )


def _refuse_endless(need: _Need, here: _Target, above: tuple[_Target, ...]) -> None:
    """Refuse there and back again with the same schemas: each object would contain itself."""
    prop, target = need.relation.prop, need.target
    back = here.via if len(above) > 1 and target.same(above[-2]) else None
    if back is None or not _are_inverse(prop, back):
        return
    raise ConfigurationError(
        f"{need.fields[0]} leads back where it came from with the same model: {_dotted(back)}, then {_dotted(prop)}.",
        why="Every value would contain itself; Pydantic refuses such a value, whatever is loaded.",
        do=(f"give {_dotted(prop)} a model without the way back, or leave {need.fields[0]} out",),
        page="loading/all-loaded",
    )


def _are_inverse(one: RelationshipProperty[Any], other: RelationshipProperty[Any]) -> bool:
    return one.back_populates == other.key or other.back_populates == one.key


def _dotted(prop: MapperProperty[Any]) -> str:
    return f"{prop.parent.class_.__name__}.{prop.key}"
