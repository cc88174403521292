"""The pure function behind `load`: entity and schema in, plan out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import PrimaryKeyConstraint, Table, UniqueConstraint, and_, inspect
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty

from verdigris.loading import refusals
from verdigris.loading import schema as shape
from verdigris.loading.attributes import HOPS, Anything, Column, Part, Relation, Touched, named, touched
from verdigris.loading.naming import type_name
from verdigris.loading.values import Plan, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Prop = RelationshipProperty[Any] | None
_Props = frozenset[_Prop]

#: How often a model may come along one path, where models contain each other in a circle.
DEPTH = 3
#: PostgreSQL's limit for one statement (MaxTupleAttributeNumber); a table may have 1,600.
MOST_COLUMNS = 1664


def plan(entity: type, schema: Any, *, depth: int = DEPTH) -> Plan:
    """Return what `schema` reads from `entity` and how it is loaded, without touching a database.

    The relationships are those that the schema's fields name: by field name, alias, validation alias or alias path,
    through optional values, lists, dicts and unions, inherited fields included; also those that code reads on a field's
    behalf: a property, a hybrid property or an association proxy of the entity, a validator that sees the raw value.
    """
    mapper: Any = inspect(entity, raiseerr=False)
    name = type_name(schema)
    if not isinstance(mapper, Mapper):
        raise refusals.not_a_mapped_class(entity, name)
    schemas = shape.models(schema)
    if not schemas:
        raise refusals.not_a_model(entity.__name__, name)
    return _Planner(depth).plan(_Target(mapper, schemas))


@dataclass(frozen=True, slots=True)
class _Path:
    """The rest of a path, and the models that what it leads to becomes."""

    names: tuple[str, ...]
    models: tuple[type, ...]


@dataclass(frozen=True, slots=True)
class _Target:
    """What is asked of one entity: schemas to fill, paths and names to read; and how one came here."""

    mapper: Mapper[Any]
    schemas: tuple[type, ...] = ()
    paths: tuple[_Path, ...] = ()
    names: frozenset[str] = frozenset()
    hops: int = HOPS
    via: RelationshipProperty[Any] | None = None

    def same(self, other: _Target) -> bool:
        return replace(self, via=None, hops=0) == replace(other, via=None, hops=0)


@dataclass(slots=True)
class _Need:
    """A relationship that is read, with all that is read of its other side."""

    relation: Relation
    fields: list[str] = field(default_factory=list)
    schemas: dict[type, None] = field(default_factory=dict)
    paths: dict[_Path, None] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    hops: int = 0

    def add(self, item: Relation, label: str, models: tuple[type, ...]) -> None:
        self.fields.append(label)
        self.names |= item.names
        self.hops = max(self.hops, item.hops)
        if item.path:
            self.paths[_Path(item.path, models)] = None
        elif item.plain:
            self.schemas.update(dict.fromkeys(models))

    @property
    def name(self) -> str:
        return f"{self.relation.owner.class_.__name__}.{self.relation.prop.key}"

    @property
    def target(self) -> _Target:
        prop = self.relation.prop
        return _Target(prop.mapper, tuple(self.schemas), tuple(self.paths), self.names, self.hops, prop)


@dataclass(slots=True)
class _Found:
    """All that is read of one entity."""

    needs: dict[tuple[Mapper[Any], str], _Need] = field(default_factory=dict)
    columns: dict[Column, None] = field(default_factory=dict)
    parts: dict[type, None] = field(default_factory=dict)
    opaque: dict[str, None] = field(default_factory=dict)

    def add(self, item: Touched, label: str, models: tuple[type, ...]) -> None:
        match item:
            case Part(owner):
                self.parts[owner.class_] = None
            case Column():
                self.columns[item] = None
            case Anything(what):
                self.opaque[what] = None
            case Relation(owner, prop):
                self.needs.setdefault((owner, prop.key), _Need(item)).add(item, label, models)


class _Planner:
    def __init__(self, depth: int) -> None:
        self.depth = depth

    def plan(self, target: _Target, above: tuple[_Target, ...] = (), passed: _Props = frozenset()) -> Plan:
        """Return the plan of a target; `passed` are the relationships on the way to the one that leads here."""
        found = _Found()
        for label, models, items in _read(target):
            for item in items:
                found.add(item, label, models)
        needs = list(found.needs.values())
        tree = _tree([need for need in needs if need.target.same(target)], passed)
        below = passed | {target.via, tree}
        steps = [self._step(need, target, (*above, target), below, tree) for need in needs]
        return Plan(
            entity=target.mapper.class_,
            schemas=target.schemas,
            steps=tuple(_fitting(target.mapper, [step for step in steps if step is not None])),
            columns=tuple((each.owner.class_, each.name) for each in found.columns),
            undeferred=tuple((each.owner.class_, each.name) for each in found.columns if each.is_deferred),
            parts=tuple(found.parts),
            bounded=tuple(need.name for need, step in zip(needs, steps, strict=True) if step is None),
            opaque=tuple(found.opaque),
        )

    def _step(self, need: _Need, here: _Target, above: tuple[_Target, ...], passed: _Props, tree: _Prop) -> Step | None:
        prop, target = need.relation.prop, need.target
        refusals.refuse_unloadable(need.relation, need.fields[0])
        back = here.via if len(above) > 1 and target.same(above[-2]) and target.schemas else None
        if back is not None and (prop.back_populates == back.key or back.back_populates == prop.key):
            raise refusals.endless(need.fields[0], back, prop)
        many = bool(prop.uselist)
        label = ", ".join(dict.fromkeys(need.fields))
        owner = need.relation.owner.class_
        if prop is tree:
            return Step(owner, prop.key, label, "selectin", innerjoin=False, plan=None)
        if sum(target.same(each) for each in above) >= self.depth:
            return None
        inner = not many and _always_there(prop)
        strategy: Literal["selectin", "joined"] = "joined" if not many and _at_most_one(prop) else "selectin"
        return Step(owner, prop.key, label, strategy, innerjoin=inner, plan=self.plan(target, above, passed))


def _tree(again: list[_Need], passed: _Props) -> _Prop:
    """Return the relationship by which a target contains itself, if it can be followed to the end of the data.

    Only one at a time can, and none that was passed before: SQLAlchemy goes on with a recursion by cutting the path
    back to the first place where its relationship occurs, and that would be another plan's.
    """
    prop = again[0].relation.prop if len(again) == 1 else None
    return None if prop in passed else prop


def _read(target: _Target) -> Iterator[tuple[str, tuple[type, ...], tuple[Touched, ...]]]:
    """Yield what fields, paths and names read: a label, the models for the other side, what is touched."""
    problems: dict[type, refusals.Problem] = {}
    for model in target.schemas:
        for each in shape.fields(model, of=target.mapper.class_):
            found = next((found for path in each.sources if (found := touched(target.mapper, path)) is not None), None)
            if found is None:
                if each.required:
                    problems.setdefault(model, refusals.missing(target.mapper, each))
                continue
            if (problem := refusals.mismatch(found, each)) is not None:
                problems.setdefault(model, problem)
            yield str(each), each.models, tuple(_seen_by(item, each.names) for item in found)
        if names := shape.names(model):
            yield f"{model.__name__}'s validator", (), tuple(named(target.mapper, names))
            yield f"{model.__name__}'s validator", (), (Anything(f"a validator of {model.__name__}"),)
    if problems and len(problems) == len(target.schemas):
        raise next(iter(problems.values())).error(target.mapper, target.schemas)
    for path in target.paths:
        yield ".".join(path.names), path.models, touched(target.mapper, path.names) or ()
    if target.names:
        yield "code", (), tuple(named(target.mapper, target.names, target.hops))


def _seen_by(item: Touched, names: frozenset[str]) -> Touched:
    """Return the item with what a validator mentions that sees its value."""
    return replace(item, names=item.names | names) if names and isinstance(item, Relation) else item


def _always_there(prop: RelationshipProperty[Any]) -> bool:
    """Whether each row has its counterpart: a plain many-to-one whose foreign key is not nullable."""
    return (
        prop.direction is RelationshipDirection.MANYTOONE
        and not prop.mapper.inherits
        and all(column.foreign_keys and not column.nullable for column in prop.local_columns)
        and prop.primaryjoin.compare(and_(*(local == remote for local, remote in prop.local_remote_pairs or ())))
    )


def _at_most_one(prop: RelationshipProperty[Any]) -> bool:
    """Whether no row has several counterparts, by the keys of the other side: a join would repeat the row for each."""
    return prop.secondary is None and any(
        prop.remote_side.issuperset(key) for table in prop.mapper.tables for key in _keys(table)
    )


def _keys(table: Any) -> Iterator[Iterable[Any]]:
    """Yield the columns of each key of a table: of no two rows they are the same."""
    if not isinstance(table, Table):
        return
    unique = [each for each in table.constraints if isinstance(each, UniqueConstraint | PrimaryKeyConstraint)]
    whole = [each for each in table.indexes if each.unique and not each.dialect_kwargs]  # a partial one says where
    for key in (*unique, *whole):
        if len(key.columns):
            yield key.columns


def _fitting(mapper: Mapper[Any], steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the steps, joining no more than one statement can return: what is too wide is loaded by one of its own."""
    width = len(mapper.column_attrs)
    for step in steps:
        beside = _width(step.plan) if step.strategy == "joined" and step.plan is not None else 0
        if width + beside > MOST_COLUMNS:
            yield replace(step, strategy="selectin", innerjoin=False)
        else:
            width += beside
            yield step


def _width(made: Plan) -> int:
    """Return how many columns a plan adds to the statement that it is joined into."""
    joined = [step.plan for step in made.steps if step.strategy == "joined" and step.plan is not None]
    return len(inspect(made.entity).column_attrs) + sum(map(_width, joined))
