"""What is read of objects, and whether their query loaded it: through functions, mappings and other queries."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from verdigris.evidence.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from verdigris.evidence.source.flow import Read

HEAD = """
from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship, selectinload

class Base(DeclarativeBase): ...

class Meter(Base):
    __tablename__ = "meter"
    id: Mapped[int] = mapped_column(primary_key=True)

class Price(Base):
    __tablename__ = "price"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    plan_id: Mapped[int] = mapped_column(ForeignKey("plan.id"))
    __mapper_args__ = {"polymorphic_on": "kind"}

class MeteredPrice(Price):
    meter_id: Mapped[int | None] = mapped_column(ForeignKey("meter.id"))
    meter: Mapped[Meter | None] = relationship(lazy="joined")
    __mapper_args__ = {"polymorphic_identity": "metered"}

class Plan(Base):
    __tablename__ = "plan"
    id: Mapped[int] = mapped_column(primary_key=True)
    prices: Mapped[list[Price]] = relationship(lazy="PRICES")
    usages: Mapped[list["Usage"]] = relationship(lazy="selectin", back_populates="plan")
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped["Owner"] = relationship(lazy="raise")

class Usage(Base):
    __tablename__ = "usage"
    id: Mapped[int] = mapped_column(primary_key=True)
    plan_id: Mapped[int] = mapped_column(ForeignKey("plan.id"))
    plan: Mapped[Plan] = relationship(lazy="raise_on_sql", back_populates="usages")
    meter_id: Mapped[int] = mapped_column(ForeignKey("meter.id"))
    meter: Mapped[Meter] = relationship(lazy="METER")

class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
"""


def reads(
    folder: Path, text: str, prices: str = "raise_on_sql", meter: str = "raise_on_sql", **files: str
) -> dict[str, Read]:
    """Return the reads of relationships by their keys."""
    head = HEAD.replace("PRICES", prices).replace("METER", meter)
    (folder / "models.py").write_text(head, "utf-8")
    files = {"app": text, **files}
    for name, content in files.items():
        (folder / f"{name}.py").write_text(head.split("class Base", 1)[0] + dedent(content), "utf-8")
    return {read.relation.key: read for read in Source.read(folder).flow.reads.found.values()}


USAGE = """
from models import Plan

async def usage(session: AsyncSession, id: int) -> list[int]:
    plan = await session.scalar(select(Plan).where(Plan.id == id))
    return [usage.meter.id for usage in plan.usages]
"""


def test_what_no_option_and_no_mapping_loads_is_missing(tmp_path: Path) -> None:
    found = reads(tmp_path, USAGE)

    assert found["Plan.usages"].state == "loaded"
    assert found["Usage.meter"].state == "missing"


def test_what_an_eager_mapping_of_a_subclass_may_bring_is_in_doubt(tmp_path: Path) -> None:
    found = reads(tmp_path, USAGE, prices="selectin")

    assert found["Usage.meter"].state == "doubt"
    assert "may be in the session already" in found["Usage.meter"].reason


def test_lazy_raise_asks_nobody_else(tmp_path: Path) -> None:
    found = reads(tmp_path, USAGE, prices="selectin", meter="raise")

    assert found["Usage.meter"].state == "missing"


def test_the_object_it_was_reached_from_is_there(tmp_path: Path) -> None:
    found = reads(tmp_path, USAGE.replace("usage.meter.id", "usage.plan.id"))

    assert found["Usage.plan"].state == "loaded"


PLANS = """
from models import Plan

async def plan(session: AsyncSession, id: int) -> Plan | None:
    return await session.scalar(select(Plan).where(Plan.id == id).options(OPTIONS))
"""
LABELS = """
from models import Plan

def label(plan: Plan) -> str:
    return plan.owner.name
"""
USE = """
from labels import label
from plans import plan

async def show(session: AsyncSession, id: int) -> str:
    found = await plan(session, id)
    return label(found)
"""


def test_a_read_names_where_it_was_reached_from_and_the_call_that_led_to_the_query(tmp_path: Path) -> None:
    found = reads(tmp_path, USE, plans=PLANS.replace("OPTIONS", "selectinload(Plan.usages)"), labels=LABELS)

    read = found["Plan.owner"]
    assert (read.state, read.start, read.place.path) == ("missing", "show()", "labels.py")
    assert read.origin is not None
    assert read.via is not None
    assert (read.origin.path, read.via.path) == ("plans.py", "app.py")


def test_an_option_in_the_repository_loads_what_another_module_reads(tmp_path: Path) -> None:
    found = reads(tmp_path, USE, plans=PLANS.replace("OPTIONS", "joinedload(Plan.owner)"), labels=LABELS)

    assert found["Plan.owner"].state == "loaded"


def test_what_hangs_on_another_object_knows_the_call_that_led_to_its_query(tmp_path: Path) -> None:
    use = USE.replace("return label(found)", "return [usage.meter.id for usage in found.usages]")
    found = reads(tmp_path, use, plans=PLANS.replace("OPTIONS", "joinedload(Plan.owner)"), labels=LABELS)

    assert found["Usage.meter"].via is not None
    assert found["Usage.meter"].via.path == "app.py"


def test_an_option_with_a_condition_of_its_own_below_another_loads_its_relationship(tmp_path: Path) -> None:
    found = reads(
        tmp_path,
        """
        from models import Plan, Usage

        async def usage(session: AsyncSession, id: int) -> list[int]:
            statement = select(Usage).options(
                joinedload(Usage.plan)
                .load_only(Plan.id)
                .options(joinedload(Plan.owner), selectinload(Plan.usages.and_(Usage.id > 1)).joinedload(Usage.meter))
            )
            used = await session.scalar(statement)
            return [other.meter.id for other in used.plan.usages]
        """,
    )

    assert found["Plan.usages"].state == "loaded"
    assert found["Usage.meter"].state == "loaded"


def test_options_one_after_the_other_are_all_below_the_relationship_that_was_named_last(tmp_path: Path) -> None:
    found = reads(
        tmp_path,
        """
        from models import Plan, Usage

        async def usage(session: AsyncSession, id: int) -> str:
            below = selectinload(Usage.plan).options(selectinload(Plan.usages).joinedload(Usage.meter))
            below = below.options(selectinload(Plan.owner)).joinedload(Plan.prices)
            used = await session.scalar(select(Usage).options(below))
            return used.plan.owner.name, used.plan.prices, [other.meter.id for other in used.plan.usages]
        """,
    )

    assert {found[name].state for name in ("Plan.owner", "Plan.prices", "Usage.meter")} == {"loaded"}


def test_options_of_an_insert_hold_for_what_it_returns_whichever_was_said_first(tmp_path: Path) -> None:
    found = reads(
        tmp_path,
        """
        from sqlalchemy import insert, update
        from models import Plan, Usage

        async def usage(session: AsyncSession) -> str:
            statement = insert(Usage).values(id=1).options(joinedload(Usage.plan)).returning(Usage)
            return (await session.scalar(statement)).plan.id

        async def meter(session: AsyncSession) -> int:
            statement = update(Usage).options(joinedload(Usage.plan)).values(id=1).returning(Usage)
            return (await session.scalar(statement)).meter.id
        """,
    )

    assert found["Usage.plan"].state == "loaded"
    assert found["Usage.meter"].state == "missing"


def test_an_option_below_another_that_cannot_be_read_leaves_what_it_may_load_in_doubt(tmp_path: Path) -> None:
    found = reads(
        tmp_path,
        """
        from models import Plan, Usage
        from elsewhere import more

        async def usage(session: AsyncSession, id: int) -> str:
            used = await session.scalar(select(Usage).options(joinedload(Usage.plan).options(selectinload(more))))
            return used.plan.owner.name
        """,
    )

    assert found["Plan.owner"].state == "doubt"


def test_options_that_a_repository_was_made_with_leave_what_they_may_load_in_doubt(tmp_path: Path) -> None:
    found = reads(
        tmp_path,
        """
        from models import Plan

        class Delegate:
            def __init__(self, session: AsyncSession, options: list = []):
                self.session = session
                self.options = options

            async def one(self, query):
                for option in self.options:
                    query = query.options(option)
                return await self.session.scalar(query)

        class Plans:
            def __init__(self, session: AsyncSession):
                self.delegate = Delegate(session, [selectinload(Plan.owner)])

            async def owner(self) -> str:
                return (await self.delegate.one(select(Plan))).owner.name
        """,
    )

    assert found["Plan.owner"].state == "doubt"


def test_what_a_query_leaves_empty_and_code_reads_on_a_condition_is_in_doubt(tmp_path: Path) -> None:
    use = """
        from sqlalchemy.orm import noload
        from models import Plan, Usage

        def usages(plan: Plan, given: list[Usage] | None):
            {read}

        async def one(session: AsyncSession, given: list[Usage] | None):
            plan = await session.scalar(select(Plan).options(noload(Plan.usages)))
            return usages(plan, given)
        """
    read = "return given if given is not None else plan.usages"

    (tmp_path / "sure").mkdir()

    assert reads(tmp_path, use.format(read=read))["Plan.usages"].state == "doubt"
    assert reads(tmp_path / "sure", use.format(read="return plan.usages"))["Plan.usages"].state == "empty"


def test_the_identity_map_may_hold_what_a_query_with_options_nobody_knows_has_loaded(tmp_path: Path) -> None:
    use = """
        from models import Plan, Usage
        from elsewhere import options

        async def one(session: AsyncSession):
            plan = await session.scalar(select(Plan).options(OPTIONS))
            used = await session.scalar(select(Usage).options(joinedload(Usage.plan)))
            return used.plan.prices
        """

    (tmp_path / "known").mkdir()

    assert reads(tmp_path, use.replace("OPTIONS", "*options()"))["Plan.prices"].state == "doubt"
    known = reads(tmp_path / "known", use.replace("OPTIONS", "selectinload(Plan.usages)"))
    assert known["Plan.prices"].state == "missing"


def test_what_is_not_followed_may_fill_a_new_object_before_it_is_flushed_and_not_after(tmp_path: Path) -> None:
    use = """
        from forms import PlanForm
        from models import Plan

        async def one(session: AsyncSession, form: PlanForm):
            plan = Plan()
            session.add(plan)
            {first}
            {last}
            return plan.prices
        """
    fills, flushes = "form.populate_obj(plan)", "await session.flush()"

    (tmp_path / "after").mkdir()

    assert reads(tmp_path, use.format(first=fills, last=flushes))["Plan.prices"].state == "doubt"
    after = reads(tmp_path / "after", use.format(first=flushes, last=fills))
    assert after["Plan.prices"].state == "missing"


def test_what_was_found_before_a_response_model_became_too_much_to_follow_stays(tmp_path: Path) -> None:
    statements = "".join(f"        x{number} = 1 + {number}\n" for number in range(20_000))
    code = """
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list["Line"]] = relationship()

    @property
    def total(self):
STATEMENTS
        return len(self.lines)

class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))

class OrderOut(BaseModel):
    total: int

@app.get("/orders", response_model=list[OrderOut])
async def orders(db: AsyncSession):
    found = (await db.execute(select(Order))).scalars().all()
    print([order.lines for order in found])
    return found
""".replace("STATEMENTS", statements)
    (tmp_path / "app.py").write_text(HEAD + code)

    flow = Source.read(tmp_path).flow.reads

    assert [read.relation.key for read in flow.found.values()] == ["Order.lines"]
    assert [each.reason for each in flow.unfollowed.values()] == ["orders() and what it calls are too large to follow"]


OPTIONAL = """
from sqlalchemy import insert
from models import Base, Meter

class Reading(Base):
    __tablename__ = "reading"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]
    meter_id: Mapped[int | None] = mapped_column(ForeignKey("meter.id")DEFAULT)
    meter: Mapped[Meter | None] = relationship(lazy="LAZY")

async def read(session: AsyncSession, data: dict) -> Meter | None:
    found = await session.scalar(STATEMENT)
    ONWARD
    return found.meter.id
"""


@pytest.mark.parametrize(
    ("statement", "others", "state"),
    [
        ("insert(Reading).values(note='a').returning(Reading)", {}, "loaded"),
        ("insert(Reading).values({'note': 'a'}).on_conflict_do_nothing().returning(Reading)", {}, "loaded"),
        ("select(Reading).where(Reading.meter_id.is_(None))", {}, "loaded"),
        ("select(Reading).where(Reading.meter_id == None)", {}, "loaded"),
        ("insert(Reading).values(note='a', meter_id=1).returning(Reading)", {}, "missing"),
        ("insert(Reading).values(**data).returning(Reading)", {}, "missing"),
        ("insert(Reading).returning(Reading), data", {}, "missing"),
        ("insert(Reading).values(note='a').returning(Reading), data", {}, "missing"),
        ("insert(Reading).values(note='a').on_conflict_do_update(set_=data).returning(Reading)", {}, "missing"),
        ("insert(Reading).values(note='a').returning(Reading)", {"DEFAULT": ", server_default='1'"}, "missing"),
        ("insert(Reading).values(note='a').returning(Reading)", {"LAZY": "raise"}, "missing"),
        ("insert(Reading).values(note='a').returning(Reading)", {"ONWARD": "found.meter_id = 1"}, "missing"),
        ("select(Reading).where(Reading.note.is_(None))", {}, "missing"),
    ],
)
def test_a_foreign_key_that_is_null_for_certain_leads_nowhere_without_a_query(
    tmp_path: Path, statement: str, others: dict[str, str], state: str
) -> None:
    text = OPTIONAL.replace("STATEMENT", statement)
    for name, default in {"DEFAULT": "", "LAZY": "select", "ONWARD": "pass"}.items():
        text = text.replace(name, others.get(name, default))

    assert reads(tmp_path, text)["Reading.meter"].state == state
