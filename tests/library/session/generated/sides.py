"""One side of the comparison: a session of either kind, its objects, and what can be seen of all of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import ForeignKey, Row, delete, func, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from verdigris import after_commit
from verdigris.errors import CommitRefusedError

from .sequences import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from .sequences import Step


class Base(DeclarativeBase):
    pass


class Tree(Base):
    __tablename__ = "trees"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    version: Mapped[int] = mapped_column()
    leaves: Mapped[list[Leaf]] = relationship(back_populates="tree", cascade="all, delete-orphan", order_by="Leaf.id")
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


class Leaf(Base):
    __tablename__ = "leaves"
    id: Mapped[int] = mapped_column(primary_key=True)
    tree_id: Mapped[int] = mapped_column(ForeignKey("trees.id"))
    tree: Mapped[Tree] = relationship(back_populates="leaves")


class Failed(Exception):  # noqa: N818 - what an application raises inside of a block
    pass


_STATES = ("transient", "pending", "persistent", "deleted", "detached")
_KEPT = 12


class Side:
    """A session, made anew when it was closed for good."""

    def __init__(self, make: Callable[[], AsyncSession], outside: asyncpg.Connection) -> None:
        self.make, self.outside = make, outside
        self.session = make()
        self.past: list[AsyncSession] = []  # that objects may still belong to
        self.objects: list[Any] = []
        self.nested: list[Any] = []
        self.refused = False  # the end of a transaction or of a block, by an error of ours

    async def run(self, step: Step) -> Any:
        """Run an operation; return what is seen of its outcome, be it an error."""
        try:
            return self.told(await getattr(self, step.name)(*step.arguments, *((step.within,) if step.within else ())))
        except Failed:
            return "failed"
        except DBAPIError as error:
            return [type(error).__name__, type(error.orig).__name__, getattr(error.orig, "sqlstate", None)]
        except Exception as error:  # noqa: BLE001 - all are compared
            at_end = isinstance(error, PendingRollbackError) and step.name in BLOCKS
            self.refused = self.refused or at_end or isinstance(error, CommitRefusedError)
            return [type(error).__name__]

    async def end(self) -> None:
        """Close all sessions; one of SQLAlchemy's may refuse to roll a savepoint back, and is dropped then."""
        for session in (self.session, *self.past):
            try:
                await session.close()
            except PendingRollbackError:
                await session.invalidate()

    def told(self, value: Any) -> Any:
        """Return what can be seen of a value, and keep the objects in it for later operations."""
        if isinstance(value, Tree | Leaf):
            if all(value is not one for one in self.objects):
                self.objects = [*self.objects, value][-_KEPT:]
            return self.state_of(value)
        if isinstance(value, Row | list | tuple):
            return [self.told(each) for each in value]
        return value

    @staticmethod
    def state_of(instance: Any) -> Any:
        """Return an object's state and what is loaded of it."""
        state = inspect(instance)
        loaded = {name: _short(found) for name, found in sorted(state.dict.items()) if not name.startswith("_sa")}
        status = next(name for name in _STATES if getattr(state, name))
        return [type(instance).__name__, status, loaded, sorted(state.expired_attributes), state.modified]

    async def seen(self) -> dict[str, Any]:
        """Return everything that can be seen now: of the session, of its objects, and of the tables from outside."""
        session = self.session
        return {
            "transaction": (session.in_transaction(), session.in_nested_transaction(), session.is_active),
            "identities": sorted((key[0].__name__, key[1]) for key in session.identity_map),
            "changes": [sorted(map(_key, each)) for each in (session.new, session.dirty, session.deleted)],
            "objects": [self.state_of(each) for each in self.objects],
            "trees": [tuple(row) for row in await self.outside.fetch("SELECT * FROM trees ORDER BY id")],
            "leaves": [tuple(row) for row in await self.outside.fetch("SELECT * FROM leaves ORDER BY id")],
        }

    def one(self, number: int, kind: type = object) -> Any:
        known = [each for each in self.objects if isinstance(each, kind)]
        return known[number % len(known)] if known else None

    # -- operations; each takes an id, a name and a number, and uses what it needs

    async def add_tree(self, ident: int, name: str, _: int) -> Any:
        tree = Tree(id=ident, name=name)
        self.session.add(tree)
        return tree

    async def add_leaf(self, ident: int, _: str, number: int) -> Any:
        tree = self.one(number, Tree)
        leaf = (
            Leaf(id=number % 20, tree_id=ident)
            if tree is None or "leaves" not in inspect(tree).dict
            else Leaf(id=number % 20, tree=tree)
        )
        self.session.add(leaf)
        return leaf

    async def set_name(self, _: int, name: str, number: int) -> None:
        if (tree := self.one(number, Tree)) is not None:
            tree.name = name

    async def move_leaf(self, ident: int, _: str, number: int) -> None:
        if (leaf := self.one(number, Leaf)) is not None:
            leaf.tree_id = ident

    async def get(self, ident: int, _: str, number: int) -> Any:
        return await self.session.get(Leaf if number % 3 == 0 else Tree, ident)

    async def get_anew(self, ident: int, *_: Any) -> Any:
        return await self.session.get(Tree, ident, populate_existing=True)

    async def get_locked(self, ident: int, *_: Any) -> Any:
        return await self.session.get(Tree, ident, with_for_update=True)

    async def get_one(self, ident: int, *_: Any) -> Any:
        return await self.session.get_one(Tree, ident)

    async def trees(self, ident: int, *_: Any) -> Any:
        return (await self.session.execute(select(Tree).where(Tree.id <= ident).order_by(Tree.id))).scalars().all()

    async def trees_with_leaves(self, ident: int, *_: Any) -> Any:
        found = select(Tree).where(Tree.id >= ident).options(selectinload(Tree.leaves)).order_by(Tree.id)
        return (await self.session.scalars(found)).all()

    async def leaves_joined(self, _: int, name: str, __: int) -> Any:
        found = select(Leaf, Tree.name).join(Leaf.tree).where(Tree.name != name).order_by(Leaf.id).limit(3)
        return (await self.session.execute(found)).all()

    async def by_name(self, _: int, name: str, __: int) -> Any:
        return await self.session.scalar(select(Tree).where(Tree.name == name))

    async def pairs(self, ident: int, *_: Any) -> Any:
        return (await self.session.execute(select(Tree.id, Tree.name).where(Tree.id == ident))).one()

    async def count(self, *_: Any) -> Any:
        return await self.session.scalar(select(func.count(Tree.id)))

    async def locked(self, ident: int, *_: Any) -> Any:
        return await self.session.scalar(select(Tree).where(Tree.id == ident).with_for_update())

    async def stream(self, ident: int, *_: Any) -> Any:
        result = await self.session.stream(select(Tree).where(Tree.id <= ident).order_by(Tree.id))
        return [each async for each in result.scalars()]

    async def run_sync(self, ident: int, *_: Any) -> Any:
        return await self.session.run_sync(lambda session: session.scalars(select(Tree).where(Tree.id != ident)).all())

    async def lazy_inside(self, _: int, __: str, number: int) -> Any:
        tree = self.one(number, Tree)
        return await self.session.run_sync(lambda _: None if tree is None else [leaf.id for leaf in tree.leaves])

    async def flush(self, *_: Any) -> None:
        await self.session.flush()

    async def commit(self, *_: Any) -> None:
        await self.session.commit()

    async def rollback(self, *_: Any) -> None:
        await self.session.rollback()

    async def begin(self, *_: Any) -> None:
        await self.session.begin()

    async def begin_nested(self, *_: Any) -> None:
        self.nested.append(await self.session.begin_nested())

    async def end_nested(self, _: int, __: str, number: int) -> None:
        if self.nested:
            nested = self.nested.pop()
            await (nested.commit() if number % 2 else nested.rollback())

    async def refresh(self, _: int, __: str, number: int) -> Any:
        await self.session.refresh(self.one(number))
        return self.one(number)

    async def expire(self, _: int, __: str, number: int) -> None:
        self.session.expire(self.one(number))

    async def expire_all(self, *_: Any) -> None:
        self.session.expire_all()

    async def expunge(self, _: int, __: str, number: int) -> None:
        self.session.expunge(self.one(number))

    async def expunge_all(self, *_: Any) -> None:
        self.session.expunge_all()

    async def delete(self, _: int, __: str, number: int) -> None:
        await self.session.delete(self.one(number))

    async def merge(self, ident: int, name: str, _: int) -> Any:
        return await self.session.merge(Tree(id=ident, name=name))

    async def update(self, ident: int, name: str, _: int) -> Any:
        return (await self.session.execute(update(Tree).where(Tree.id == ident).values(name=name))).rowcount

    async def update_by_criteria(self, ident: int, *_: Any) -> Any:
        changed = update(Tree).where(Tree.id > ident).values(name=Tree.name + "!").returning(Tree)
        return sorted(tree.id for tree in (await self.session.scalars(changed)).all())

    async def insert(self, ident: int, name: str, _: int) -> Any:
        return (
            await self.session.execute(insert(Tree).returning(Tree.id), [{"id": ident, "name": name, "version": 1}])
        ).all()

    async def remove(self, ident: int, *_: Any) -> Any:
        return (await self.session.execute(delete(Tree).where(Tree.id == ident))).rowcount

    async def divide(self, *_: Any) -> Any:
        return await self.session.scalar(select(Tree.id / 0))

    async def misspelt(self, *_: Any) -> Any:
        return await self.session.execute(text("SELEKT"))

    async def connection(self, *_: Any) -> Any:
        connection = await self.session.connection()
        return (await connection.execute(select(func.count()).select_from(Tree.__table__))).scalar()

    async def from_outside(self, ident: int, name: str, _: int) -> Any:
        """Write by another connection, which gives up where this session holds the row."""
        with suppress(asyncpg.PostgresError):
            return await self.outside.execute(
                "UPDATE trees SET version = version + 1, name = $2 WHERE ident = $1", ident, f"{name} {ident}"
            )

    async def close(self, *_: Any) -> None:
        await self.session.close()
        self._anew()

    async def reset(self, *_: Any) -> None:
        await self.session.reset()
        self.nested = []

    async def invalidate(self, *_: Any) -> None:
        await self.session.invalidate()
        self._anew()

    def _anew(self) -> None:
        self.past.append(self.session)
        self.session, self.nested = self.make(), []

    async def afterwards(self, *_: Any) -> None:
        """Give a hook to run after COMMIT, which SQLAlchemy does not have."""

    async def block(self, fails: bool, within: tuple[Step, ...] = ()) -> Any:
        return await self._block(self.session.begin(), within, fails=fails)

    async def nested_block(self, fails: bool, within: tuple[Step, ...] = ()) -> Any:
        return await self._block(self.session.begin_nested(), within, fails=fails)

    async def _block(self, transaction: Any, within: tuple[Step, ...], *, fails: bool) -> Any:
        async with transaction:
            seen = [await self.run(step) for step in within]
            if fails:
                raise Failed
        return seen


class OurSide(Side):
    """A session of a Database."""

    async def afterwards(self, *_: Any) -> None:
        after_commit(self.session, lambda: None)


def _short(found: Any) -> Any:
    """Return what a value that is loaded of an object is, related objects by their keys."""
    if isinstance(found, list):
        return [_key(each) for each in found]
    return _key(found) if isinstance(found, Tree | Leaf) else found


def _key(instance: Any) -> str:
    return f"{type(instance).__name__} {instance.__dict__.get('id')}"
