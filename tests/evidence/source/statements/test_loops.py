"""Which queries in loops are queries a row, and which only look like it."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from verdigris.evidence.source import Source

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import asyncio
from typing import Self
from sqlalchemy import ForeignKey, MetaData, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from pydantic import BaseModel

class Base(DeclarativeBase): ...

class Folder(Base):
    __tablename__ = "folder"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("folder.id"))
    name: Mapped[str]

class Changes(BaseModel):
    owner: int | None = None
    name: str | None = None

async def find(session: AsyncSession, id: int) -> Folder | None:
    return await session.get(Folder, id)
"""


def queries(folder: Path, text: str) -> list[tuple[str, str | None]]:
    """Name what each loop goes over whose query is one a row, with the doubt about it."""
    (folder / "app.py").write_text(HEAD + dedent(text), "utf-8")
    return [(found.rows, found.unsure) for found in Source.read(folder).row_queries]


@pytest.mark.parametrize(
    "loop",
    [
        "for id in ids: found.append(await find(session, id))",
        "for id in ids: found.append(await session.scalar(select(Folder).where(Folder.id == id)))",
        "found = [await find(session, id) for id in ids]",
        "found = await asyncio.gather(*[find(session, id) for id in ids])",
        "for folder in folders: await session.refresh(folder)",
        "for index, id in enumerate(sorted(ids)): found.append(await find(session, id))",
        "for id in ids[10:]: found.append(await find(session, id))",
        "for line in changes.model_dump()['lines']: found.append(await find(session, line))",
    ],
)
def test_a_query_for_each_of_many_is_one_a_row(tmp_path: Path, loop: str) -> None:
    found = queries(
        tmp_path,
        f"""
        async def work(session: AsyncSession, ids: list[int], folders: list[Folder], changes: Changes):
            found = []
            {loop}
            return found
        """,
    )

    assert [why for _, why in found] == [None]


@pytest.mark.parametrize(
    "loop",
    [
        "for one in await db.fetch(select(Folder), list[Changes]): await db.fetch(children(one), list[Changes])",
        "found = [await db.lane.fetchval('SELECT 1 FROM folder WHERE id = $1', (id,)) for id in ids]",
        "for id in ids: found.append(await db.lane.fetch('SELECT * FROM folder WHERE parent_id = $1', (id,)))",
        "for id in ids: found.append(await db.json(select(Folder).where(Folder.id == id), Changes))",
        "for id in ids: found.append(await one(id=id))",
        "for id in ids: found.append(await one.fetch(id=id))",
        "for id in ids: found.append(await named(id))",
        "found = await asyncio.gather(*[named(id) for id in ids])",
    ],
)
def test_the_librarys_own_reads_are_queries_too(tmp_path: Path, loop: str) -> None:
    found = queries(
        tmp_path,
        f"""
        from sqlalchemy import bindparam
        from verdigris import Database

        db = Database("postgresql://localhost/shop")
        one = db.json_read(select(Folder).where(Folder.id == bindparam("id")), Changes)

        def children(folder: Folder):
            return select(Folder).where(Folder.parent_id == folder.id)

        async def named(id: int) -> str:
            return await db.lane.fetchval("SELECT name FROM folder WHERE id = $1", (id,))

        async def work(ids: list[int]):
            found = []
            {loop}
            return found
        """,
    )

    assert [why for _, why in found] == [None]


def test_gathered_reads_of_the_library_may_go_together(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        from verdigris import Database

        db = Database("postgresql://localhost/shop")

        async def work(ids: list[int]):
            return await asyncio.gather(*[db.fetch(select(Folder).where(Folder.id == id), Changes) for id in ids])
        """,
    )

    assert found == [("ids", "reads that wait in the same moment may go to the server together")]


@pytest.mark.parametrize(
    ("test", "body", "step", "over"),
    [
        ("i < len(rows)", "await find(session, rows[i])", "i += 1", ["rows"]),
        ("len(rows) > i", "row = rows[i]; await find(session, row)", "i += 1", ["rows"]),
        (
            "i < len(rows)",
            "await session.scalars(select(Folder).where(Folder.id.in_(rows[i:i + 500])))",
            "i += 500",
            [],
        ),
        ("i < 3", "await find(session, i)", "i += 1", []),
        ("i < len(rows)", "await find(session, 7)", "i += 1", []),
        ("True", "rows = (await session.scalars(select(Folder).offset(i))).all()", "i += len(rows)", []),
    ],
)
def test_a_while_that_counts_through_rows_is_a_loop_over_them(
    tmp_path: Path, test: str, body: str, step: str, over: list[str]
) -> None:
    found = queries(
        tmp_path,
        f"""
        async def work(session: AsyncSession):
            rows = (await session.scalars(select(Folder.id))).all()
            i = 0
            while {test}:
                {body}
                {step}
        """,
    )

    assert [rows for rows, _ in found] == over


@pytest.mark.parametrize(
    "loop",
    [
        "for kind in ('a', 'b'): await session.scalar(select(Folder).where(Folder.name == kind))",
        "for chunk in batched(ids, 100): await session.scalars(select(Folder).where(Folder.id.in_(chunk)))",
        "for attempt in range(3): await find(session, attempt)",
        "for id in ids: await session.execute(insert(Folder).values(id=id))",
        "for id in ids: await find(session, 1)",
        "for id in ids[:3]: await find(session, id)",
        "for key, value in changes.model_dump(exclude_unset=True).items(): await find(session, value)",
        "for name in Changes.model_fields: await session.scalar(select(Folder).where(Folder.name == name))",
        "for table in Base.metadata.sorted_tables: await session.scalar(select(func.max(table.c.id)))",
        "for name, table in other.tables.items(): await session.scalar(select(func.max(table.c.id)))",
        "for kin in Base.__subclasses__(): await session.scalar(select(kin))",
        "for kin in folder.__mapper__.relationships: await session.refresh(folder, [kin.key])",
        "for name in defaults(): await session.scalar(select(Folder).where(Folder.name == name))",
        "for id in [folder for folder in await session.scalars(select(Folder.id))]: ids.append(id)",
    ],
)
def test_a_loop_over_parts_chunks_or_a_handful_is_none_over_rows(tmp_path: Path, loop: str) -> None:
    found = queries(
        tmp_path,
        f"""
        from itertools import batched

        def defaults() -> list[str]:
            return ["inbox", "outbox"]

        async def work(session: AsyncSession, ids: list[int], folder: Folder, changes: Changes, metadata: MetaData):
            other_metadata = other = metadata
            {loop.replace("other.", "other_metadata.")}
        """,
    )

    assert found == []


def test_a_round_with_a_session_of_its_own_that_writes_is_a_unit_of_work(tmp_path: Path) -> None:
    loop = """
from sqlalchemy.ext.asyncio import async_sessionmaker
factory = async_sessionmaker()

async def work(ids: list[int]):
    for id in ids:
        async with factory() as session:
            folder = await session.scalar(select(Folder).where(Folder.id == id))
            {}
"""
    found = {}
    for name, more in {"read": "print(folder)", "written": "folder.name = ''; await session.commit()"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text(HEAD + loop.format(more), "utf-8")
        found[name] = [query.works for query in Source.read(tmp_path / name).row_queries]

    assert found == {"read": [False], "written": [True]}


def test_a_query_for_all_of_a_group_is_a_doubt_and_one_for_what_a_row_has_none(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        async def by_kind(session: AsyncSession, kinds: dict[str, set[int]]):
            for kind, ids in kinds.items():
                await session.scalars(select(Folder).where(Folder.name == kind, Folder.id.in_(ids)))

        async def by_key(session: AsyncSession, kinds: dict[str, dict[int, str]]):
            for kind, told in kinds.items():
                await session.scalars(select(Folder).where(Folder.name == kind, Folder.id.in_(list(told.keys()))))

        def made(kind, *ids):
            return select(Folder).where(Folder.name == kind, Folder.id.in_(ids))

        async def by_function(session: AsyncSession, kinds: dict[str, dict[int, str]]):
            for kind, told in kinds.items():
                await session.scalars(made(kind, *told.keys()))

        async def by_row(session: AsyncSession, owners):
            for owner in owners:
                await session.scalars(select(Folder).where(Folder.id.in_(owner.ids)))

        async def by_pair(session: AsyncSession, pairs):
            for pair in pairs:
                await session.scalars(made(*pair))
        """,
    )

    grouped = "each round asks for all of a group"
    assert found == [*[("kinds.items()", grouped)] * 3, ("owners", None), ("pairs", None)]


def test_a_connection_asks_for_each_row_as_a_session_does(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

        async def passed(connection: AsyncConnection, ids: list[int]):
            for id in ids:
                await connection.execute(select(Folder.name).where(Folder.id == id))

        async def begun(engine: AsyncEngine, names: list[str]):
            async with engine.connect() as connection:
                return [await connection.scalar(select(Folder.id).where(Folder.name == name)) for name in names]

        async def streamed(connection: AsyncConnection):
            async for row in await connection.stream(select(Folder.id)):
                await passed(connection, [row.id])

        async def counted(connection: AsyncConnection, ids: list[int]):
            await connection.execute(select(Folder.name).where(Folder.id.in_(ids)))
            return [id + 1 for id in ids]
        """,
    )

    assert [rows for rows, _ in found] == ["ids", "names", "await connection.stream(select(Folder.id))"]


def test_what_a_class_writes_out_is_a_handful_for_its_methods(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        class Mail(BaseModel):
            names: list[str] = []

        class Settings:
            kinds: list[str] = ["mail", "git"]
            names: list[str] = []

            async def by_kind(self, session: AsyncSession):
                return [await session.scalar(select(Folder).where(Folder.name == kind)) for kind in self.kinds]

            async def by_name(self, session: AsyncSession):
                return [await session.scalar(select(Folder).where(Folder.name == name)) for name in self.names]

            async def by_mail(self, session: AsyncSession, mail: Mail):
                return [await session.scalar(select(Folder).where(Folder.name == name)) for name in mail.names]
        """,
    )

    assert found == [("self.names", None), ("mail.names", None)]


def test_a_list_of_what_the_source_appends_one_by_one_is_a_handful(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        async def by_either(session: AsyncSession, owner: int | None, name: str | None):
            ids = []
            if owner is not None:
                ids.append(owner)
            if name is not None:
                ids.append(len(name))
            return [await find(session, id) for id in ids]

        async def by_all(session: AsyncSession, owners: list[int]):
            ids = []
            for owner in owners:
                ids.append(owner)
            return [await find(session, id) for id in ids]

        async def by_more(session: AsyncSession, owners: list[int]):
            known = []
            known.extend(owners)
            return [await find(session, id) for id in known]
        """,
    )

    assert found == [("ids", None), ("known", None)]


def test_a_function_whose_list_is_read_from_a_file_gives_more_than_a_handful(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        def defaults() -> list[str]:
            return [line for line in open("names")]

        async def work(session: AsyncSession):
            for name in defaults():
                await session.scalar(select(Folder).where(Folder.name == name))
        """,
    )

    assert found == [("defaults()", None)]


@pytest.mark.parametrize(
    ("over", "test", "asked"),
    [
        ("key, value in changes.items()", "key == 'owner' and value is not None", "value"),
        ("name in names", "name == 'owner'", "name"),
    ],
)
def test_a_query_for_one_name_of_all_runs_once(tmp_path: Path, over: str, test: str, asked: str) -> None:
    found = queries(
        tmp_path,
        f"""
        async def work(session: AsyncSession, changes: dict[str, int], names: list[str], folder: Folder):
            for {over}:
                if {test}:
                    await session.scalar(select(Folder).where(Folder.name == {asked}))
        """,
    )

    assert found == []


@pytest.mark.parametrize(
    ("over", "test"),
    [
        ("key, value in pairs", "key == 'owner'"),  # a key may come again: these are no mapping's
        ("key, value in changes.items()", "key == 'owner' or value"),
        ("key, value in changes.items()", "value == 1"),
    ],
)
def test_a_query_for_one_kind_of_many_runs_for_each_of_that_kind(tmp_path: Path, over: str, test: str) -> None:
    found = queries(
        tmp_path,
        f"""
        async def work(session: AsyncSession, changes: dict[str, int], pairs: list[tuple[str, int]]):
            for {over}:
                if {test}:
                    await find(session, value)
        """,
    )

    assert [why for _, why in found] == [None]


def test_a_walk_along_a_path_needs_what_the_round_before_found(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        async def work(session: AsyncSession, parts: list[str]):
            parent_id: int | None = None
            for part in parts:
                query = select(Folder).where(Folder.name == part)
                query = query.where(Folder.parent_id == parent_id)
                result = await session.execute(query)
                folder = result.scalar_one()
                parent_id = folder.id
        """,
    )

    assert found == [("parts", "each round needs what the one before found")]


def test_a_counter_makes_no_chain(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        async def work(session: AsyncSession, ids: list[int]):
            number = 0
            for id in ids:
                folder = await session.scalar(select(Folder).where(Folder.id == id, Folder.parent_id == number))
                number = number + 1
        """,
    )

    assert found == [("ids", None)]


def test_a_service_that_is_kept_on_the_object_is_asked_for_once(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        class Mail:
            def __init__(self, session: AsyncSession) -> None:
                self.session = session
                self.service: Folder | None = None

            async def connect(self):
                if self.service is not None:
                    return self.service
                self.service = await self.session.scalar(select(Folder))
                return self.service

            async def message(self, id: int):
                service = await self.connect()
                return service

            async def messages(self, ids: list[int]):
                return [await self.message(id) for id in ids]
        """,
    )

    assert found == []


def test_an_attribute_of_what_is_passed_is_no_memory(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        async def name(session: AsyncSession, folder: Folder):
            if folder.name:
                return folder.name
            return await session.scalar(select(Folder.name).where(Folder.id == folder.parent_id))

        async def work(session: AsyncSession, folders: list[Folder]):
            return [await name(session, folder) for folder in folders]
        """,
    )

    assert found == [("folders", None)]


EXCEPTIONAL = "it runs only for those that another way did not find"


@pytest.mark.parametrize(
    ("before", "lookup", "why"),
    [
        ("known = {row.id: row for row in await session.scalars(select(Folder))}", "known.get(id)", EXCEPTIONAL),
        ("known = await everything(session)", "next((row for row in known if row.id == id), None)", EXCEPTIONAL),
        ("known = {}", "known.get(id)", None),  # empty: each new key is a query
        ("known = {}; known[1] = Folder()", "known.get(id)", EXCEPTIONAL),
        ("known = {}", "id.get('folder')", None),  # looks into the row itself
    ],
)
def test_what_is_asked_for_the_missing_only_is_in_doubt(
    tmp_path: Path, before: str, lookup: str, why: str | None
) -> None:
    found = queries(
        tmp_path,
        f"""
        async def everything(session: AsyncSession) -> list[Folder]:
            return list(await session.scalars(select(Folder)))

        async def work(session: AsyncSession, ids: list):
            {before}
            for id in ids:
                row = {lookup}
                if row is None:
                    row = await find(session, id)
                    known[id] = row
        """,
    )

    assert [doubt for rows, doubt in found if rows == "ids"] == [why]


def test_a_method_that_returns_self_gives_the_class_it_was_called_on(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        class Repository:
            def __init__(self, session: AsyncSession) -> None:
                self.session = session

            @classmethod
            def from_session(cls, session: AsyncSession) -> Self:
                return cls(session)

        class Folders(Repository):
            async def named(self, name: str) -> Folder | None:
                return await self.session.scalar(select(Folder).where(Folder.name == name))

        async def work(session: AsyncSession, names: list[str]):
            folders = Folders.from_session(session)
            return [await folders.named(name) for name in names]
        """,
    )

    assert found == [("names", None)]


def test_a_generator_of_the_tree_that_queries_streams_rows(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        class Folders:
            def __init__(self, session: AsyncSession) -> None:
                self.session = session

            async def stream(self):
                rows = await self.session.stream_scalars(select(Folder))
                async for row in rows:
                    yield row

        async def work(session: AsyncSession):
            known: dict[int, Folder] = {}
            async for folder in Folders(session).stream():
                try:
                    parent = known[folder.parent_id]
                except KeyError:
                    parent = await find(session, folder.parent_id)
                    known[folder.parent_id] = parent
        """,
    )

    assert found == [("Folders(session).stream()", None)]


def test_a_queue_streams_no_rows(tmp_path: Path) -> None:
    found = queries(
        tmp_path,
        """
        async def work(session: AsyncSession, queue):
            async for message in queue.stream():
                await find(session, message.id)
        """,
    )

    assert found == []


@pytest.mark.parametrize(
    ("handed", "works"),
    [
        ("client.complete(row)", True),
        ("measured(client.complete(row))", True),
        ("session.get(Folder, row.id)", False),
    ],
)
def test_a_coroutine_that_a_function_hands_on_is_work_unless_it_reads(tmp_path: Path, handed: str, works: bool) -> None:
    text = f"""
    from somewhere import client

    async def measured(coroutine):
        return await coroutine

    def handed(session: AsyncSession, row: Folder):
        return {handed}

    async def answer(session: AsyncSession, id: int):
        row = await session.get(Folder, id)
        return await handed(session, row)

    async def work(session: AsyncSession, ids: list[int]):
        return [await answer(session, id) for id in ids]
    """
    (tmp_path / "app.py").write_text(HEAD + dedent(text), "utf-8")

    (found,) = Source.read(tmp_path).row_queries

    assert found.works is works


def test_who_asks_first_does_not_decide_what_a_function_asks(tmp_path):
    """Calls are followed so far: one that is reached from far away is no other when it is called at hand."""
    far = "\n".join(
        f"async def far{n}(session, id):\n    return await {f'far{n + 1}' if n < 5 else 'find'}(session, id)\n"
        for n in range(6)
    )
    first = "async def first(session: AsyncSession, ids):\n    for id in ids:\n        await far0(session, id)\n"
    last = "async def last(session: AsyncSession, keys):\n    for key in keys:\n        await far4(session, key)\n"

    found = queries(tmp_path, f"{far}\n{first}\n{last}")

    assert ("keys", None) in found
