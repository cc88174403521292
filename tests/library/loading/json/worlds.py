"""Worlds: mapped classes, rows, and response models over them, all drawn from one seed."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

import sqlalchemy as sa
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, RootModel, create_model
from pydantic.alias_generators import to_camel
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import column_property, mapped_column, registry, relationship, synonym
from tests.library.loading.json.columns import Kind, kinds
from tests.library.loading.json.comparing import examples

T = TypeVar("T")
#: Names that are hard on SQL; the attribute has a name of its own.
NAMES = ("order", 'a"b', "%(x)s", "p:q", "über", "User Name", "x" * 62, "$1", "select", "a'b", "a.b", "_0", "v")
KEYS = ('a"b', "ключ", "with space", "back\\slash", "per%cent", "col:on", "k" * 80, "'", "new\nline", "{brace}")
CONFIGS: tuple[ConfigDict, ...] = (
    *({},) * 6,
    {"alias_generator": to_camel, "populate_by_name": True},
    {"ser_json_inf_nan": "strings", "ser_json_timedelta": "float", "ser_json_bytes": "hex"},
    {"ser_json_bytes": "base64", "use_enum_values": True},
    {"str_strip_whitespace": True, "coerce_numbers_to_str": True},
    {"strict": True},
    {"strict": True, "use_enum_values": True, "ser_json_inf_nan": "constants"},
)


@functools.cache
def pool(name: str) -> list[Any]:
    """Return some values of a kind of column."""
    return examples(next(kind.values for kind in kinds() if kind.name == name), 60)


@dataclass
class Entity:
    """A mapped class and what a model may read of it."""

    cls: type
    #: Attribute name, kind of column, whether it may be NULL.
    columns: list[tuple[str, Kind, bool]] = field(default_factory=list)
    #: Attribute name, the other side, whether it is a collection, whether it may be missing.
    relations: list[tuple[str, Entity, bool, bool]] = field(default_factory=list)
    #: Attributes that are no columns: name and annotation.
    others: list[tuple[str, Any]] = field(default_factory=list)
    subclasses: list[Entity] = field(default_factory=list)


class World:
    """Some mapped classes that know each other, and rows of them."""

    def __init__(self, seed: int, prefix: str) -> None:
        self.random = random.Random(seed)
        self.registry = registry()
        self.prefix = prefix
        self.kinds = [kind for kind in kinds() if kind.name not in {"citext", "hstore"}]
        self.entities: list[Entity] = []
        for number in range(self.random.randint(3, 5)):
            self._entity(number)
        self.registry.configure()

    def close(self) -> None:
        """Forget the classes."""
        self.registry.dispose()

    def _entity(self, number: int) -> None:
        body: dict[str, Any] = {
            "__tablename__": f"{self.prefix}_{number}",
            "id": mapped_column(sa.Integer, primary_key=True, autoincrement=False),
        }
        made = Entity(object)
        self._columns(body, made, "c", self.random.randint(2, 7))
        targets = [self._to_one(body, number, made) for _ in range(self.random.randint(0, 2))] if self.entities else []
        if self.random.random() < 0.3:
            body["parent_id"] = mapped_column(
                sa.ForeignKey(f"{self.prefix}_{number}.id", deferrable=True, initially="DEFERRED")
            )
            body["children"] = relationship(f"E{self.prefix}{number}", order_by="-" + f"E{self.prefix}{number}.id")
        body["label"] = column_property(sa.func.concat("n", body["id"].column))
        body["doubled"] = hybrid_property(lambda self: self.id * 2)
        body["same"] = synonym("id")
        made.others += [("label", str), ("doubled", int), ("same", int)]
        polymorphic = self.random.choice(("", "", "single", "joined"))
        if polymorphic:
            body["kind"] = mapped_column(sa.String(10))
            body["__mapper_args__"] = {"polymorphic_on": "kind", "polymorphic_identity": "base"}
            made.others.append(("kind", str))
        made.cls = self._mapped(f"E{self.prefix}{number}", (), body)
        if "children" in body:
            made.relations.append(("children", made, True, False))
        for name, target, nullable, back in targets:
            made.relations.append((name, target, False, nullable))
            target.relations.append((back, made, True, False))
        if polymorphic:
            made.subclasses = [self._subclass(made, number, each, polymorphic) for each in range(2)]
        if self.entities and self.random.random() < 0.4:
            self._many_to_many(made, number)
        self.entities.append(made)

    def _columns(self, body: dict[str, Any], made: Entity, letter: str, count: int, *, nullable: bool = False) -> None:
        names = self.random.sample(NAMES, count)
        for number, kind in enumerate(self.random.choices(self.kinds, k=count)):
            null = nullable or self.random.random() < 0.4
            name = f"{letter}{number}"
            column = (names[number],) if self.random.random() < 0.4 else ()
            deferred = self.random.random() < 0.1
            body[name] = mapped_column(*column, kind.type, nullable=null, deferred=deferred)
            made.columns.append((name, kind, null))

    def _to_one(self, body: dict[str, Any], number: int, made: Entity) -> tuple[str, Entity, bool, str]:
        target = self.random.choice(self.entities)
        null = self.random.random() < 0.5
        name = f"to_{target.cls.__name__.lower()}_{len(body)}"
        back = f"from_{number}_{len(body)}"
        key = mapped_column(sa.ForeignKey(f"{target.cls.__tablename__}.id"), nullable=null)
        body[f"{name}_id"] = key
        ordered = {"order_by": f"E{self.prefix}{number}.id.desc()"} if self.random.random() < 0.5 else {}
        body[name] = relationship(
            target.cls,
            foreign_keys=[key.column],
            backref=sa.orm.backref(back, order_by=ordered.get("order_by", f"E{self.prefix}{number}.id")),
        )
        return name, target, null, back

    def _many_to_many(self, made: Entity, number: int) -> None:
        target = self.random.choice(self.entities)
        table = sa.Table(
            f"{self.prefix}_{number}_links",
            self.registry.metadata,
            sa.Column("a", sa.ForeignKey(f"{self.prefix}_{number}.id"), primary_key=True),
            sa.Column("b", sa.ForeignKey(f"{target.cls.__tablename__}.id"), primary_key=True),
        )
        links = relationship(target.cls, secondary=table, order_by=f"{target.cls.__name__}.id")
        sa.inspect(made.cls).add_property("links", links)
        made.cls.link_ids = association_proxy("links", "id")
        made.relations.append(("links", target, True, False))
        made.others.append(("link_ids", list[int]))

    def _subclass(self, base: Entity, number: int, each: int, polymorphic: str) -> Entity:
        body: dict[str, Any] = {"__mapper_args__": {"polymorphic_identity": f"sub{each}"}}
        if polymorphic == "joined":
            body["__tablename__"] = f"{self.prefix}_{number}_{each}"
            body["id"] = mapped_column(sa.ForeignKey(f"{self.prefix}_{number}.id"), primary_key=True)
        made = Entity(object, list(base.columns), list(base.relations), list(base.others))
        names = self.random.sample(NAMES, 2)
        for index, kind in enumerate(self.random.choices(self.kinds, k=2)):
            name = f"s{each}_{index}"
            column = f"{names[index][:40]} {each}"
            body[name] = mapped_column(column, kind.type, nullable=True)
            made.columns.append((name, kind, True))
        made.cls = self._mapped(f"E{self.prefix}{number}S{each}", (base.cls,), body)
        return made

    def _mapped(self, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
        return self.registry.mapped(type(name, bases or (object,), body))

    def rows(self, count: int) -> list[Any]:
        """Return objects of every class, to be added in this order."""
        made: dict[str, list[Any]] = {}
        found: list[Any] = []
        for entity in self.entities:
            kept = made[entity.cls.__name__] = []
            for number in range(count):
                chosen = self.random.choice([entity, *entity.subclasses])
                values = {name: self._value(kind, null=null) for name, kind, null in chosen.columns}
                row = chosen.cls(id=number + 1, **values)
                for name, target, many, null in entity.relations:
                    known = made.get(target.cls.__name__, [])
                    if name == "links":
                        row.links = self.random.sample(known, self.random.randint(0, min(3, len(known))))
                    elif not many and known and not (null and self.random.random() < 0.3):
                        setattr(row, name, self.random.choice(known))
                    elif name == "children" and kept and self.random.random() < 0.5:
                        row.parent_id = self.random.choice(kept).id
                kept.append(row)
            found += kept
        return found

    def _value(self, kind: Kind, *, null: bool) -> Any:
        if null and self.random.random() < 0.3:
            return None
        value = self.random.choice(pool(kind.name))
        length = getattr(kind.type, "length", None)
        return value[:length] if length and isinstance(value, str) and type(value) is str else value


class Models:
    """Response models over a world's entities."""

    def __init__(self, world: World, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = world
        self._count = 0

    def model(self, entity: Entity, depth: int = 0) -> Any:
        """Return a model of an entity: its columns, some of them, and what its relationships lead to."""
        if (
            entity.subclasses
            and depth < 2
            and self.random.random() < 0.3
            and any(n == "kind" for n, _ in entity.others)
        ):
            return self._tagged(entity, depth)
        fields: dict[str, Any] = {}
        config = self.random.choice(CONFIGS)
        for name, kind, null in entity.columns:
            if self.random.random() < 0.8:
                fields |= self._field(name, self._annotation(kind, null=null), config)
        for name, annotation in entity.others:
            if self.random.random() < 0.4:
                fields |= self._field(name, annotation, config)
        for name, target, many, null in entity.relations:
            if not many and target.columns and self.random.random() < 0.1:
                fields |= self._through(name, target, null=null)
            if depth < 3 and self.random.random() < (0.6, 0.4, 0.2)[depth]:
                fields |= self._field(name, self._related(target, depth, many=many, null=null), config)
        if any(name == "children" for name, *_ in entity.relations) and self.random.random() < 0.2:
            config = {name: value for name, value in config.items() if name != "alias_generator"}
            fields["children"] = (list[f"M{self._count + 1}"], ...)
        if self.random.random() < 0.1:
            fields["absent"] = (self.random.choice([int, str, list[int]]), self.random.choice([None, 7]))
        return self._made(fields, config)

    def _made(self, fields: dict[str, Any], config: ConfigDict) -> Any:
        self._count += 1
        fields = fields or {"id": (int, ...)}
        name = f"M{self._count}"
        if self.random.random() < 0.15 and len(fields) > 1:
            first = dict(list(fields.items())[:1])
            base = create_model(f"{name}Base", __config__=config, **first)
            return create_model(name, __base__=base, **dict(list(fields.items())[1:]))
        if self.random.random() < 0.1:
            generic = create_model(f"{name}G", __base__=(BaseModel, Generic[T]), id=(T, ...))
            made = create_model(name, __base__=generic[int], **fields)
            made.model_config = {**config}
            made.model_rebuild(force=True)
            return made
        return create_model(name, __config__=config, **fields)

    def _tagged(self, entity: Entity, depth: int) -> Any:
        choices = []
        for tag, each in (("base", entity), ("sub0", entity.subclasses[0]), ("sub1", entity.subclasses[1])):
            plain = Entity(each.cls, each.columns, each.relations, [o for o in each.others if o[0] != "kind"])
            model = self.model(plain, max(depth, 2))
            choices.append(create_model(f"{model.__name__}T", __base__=model, kind=(Literal[tag], ...)))
        return Annotated[choices[0] | choices[1] | choices[2], Field(discriminator="kind")]

    def _related(self, target: Entity, depth: int, *, many: bool, null: bool) -> Any:
        model = self.model(target, depth + 1)
        if many:
            if self.random.random() < 0.03 and isinstance(model, type):
                return RootModel[list[model]]
            return list[model]
        return model | None if null or self.random.random() < 0.2 else model

    def _through(self, name: str, target: Entity, *, null: bool) -> dict[str, Any]:
        """Return a field that reads a column of the other side by an alias path."""
        column, kind, nullable = self.random.choice(target.columns)
        missing = {"default": self.random.choice([None, "nowhere"])} if null else {}
        annotation = self._annotation(kind, null=nullable)
        return {f"p_{name}": (annotation, Field(validation_alias=AliasPath(name, column), **missing))}

    def _annotation(self, kind: Kind, *, null: bool) -> Any:
        annotation = kind.fields[0] if self.random.random() < 0.8 else self.random.choice(kind.fields)
        if self.random.random() < 0.01 and kind.python:
            annotation = self.random.choice(kind.python)
        return annotation | None if null and annotation is not Any else annotation

    def _field(self, name: str, annotation: Any, config: ConfigDict) -> dict[str, Any]:
        roll = self.random.random()
        key = f"{self.random.choice(KEYS)}{name}"
        options: dict[str, Any] = {}
        field_name = name
        if roll < 0.08:
            options["serialization_alias"] = key
        elif roll < 0.16:
            field_name, options = f"f_{name}", {"validation_alias": name}
        elif roll < 0.22:
            field_name, options = f"f_{name}", {"alias": name}
        elif roll < 0.26:
            field_name, options = f"f_{name}", {"validation_alias": AliasChoices("nothing", AliasPath(name))}
        elif roll < 0.30:
            options["exclude"] = True
        elif "alias_generator" in config:
            options["validation_alias"] = name
        if self.random.random() < 0.15:
            options["default"] = None
        return {field_name: (annotation, Field(**options) if options else ...)}
