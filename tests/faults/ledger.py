"""A ledger of money under load while everything breaks: not one transfer lost, doubled or half done.

    python -m tests.faults.ledger --seconds 300

Every transfer has an id that its sender chose and leaves two postings, which nothing keeps from being doubled but the
transaction. Senders note what they were told; at the end the books are compared with it.
"""

import argparse
import asyncio
import collections
import contextlib
import itertools
import json
import logging
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated

import httpx
from fastapi import APIRouter, Body, Depends, FastAPI
from sqlalchemy import text

from tests.faults.rig import Fate, Postgres, Proxy, eventually
from verdigris import Database
from verdigris.errors import OutcomeUnknownError, VerdigrisError, classify
from verdigris.fastapi import Route, install, retrying
from verdigris.session import AsyncSession

WALLETS, TOTAL = 20, 20_000
SCHEMA = (
    "CREATE TABLE wallet (id int PRIMARY KEY, balance int NOT NULL)",
    "CREATE TABLE transfer (id uuid PRIMARY KEY)",
    "CREATE TABLE posting (transfer uuid NOT NULL, wallet int NOT NULL, amount int NOT NULL)",
    f"INSERT INTO wallet SELECT id, {TOTAL // WALLETS} FROM generate_series(1, {WALLETS}) AS id",
)
ENTER = text("INSERT INTO transfer VALUES (:id) ON CONFLICT DO NOTHING RETURNING id")
POST = text("INSERT INTO posting VALUES (:id, :wallet, :amount)")
CHANGE = text("UPDATE wallet SET balance = balance + :amount WHERE id = :wallet")
STORED, REFUSED, UNKNOWN, CANCELLED = "stored", "refused", "unknown", "cancelled"


@dataclass
class Books:
    """What the senders were told, what was broken, and what was found wrong."""

    told: dict = field(default_factory=dict)  # transfer id: (way, outcome, attempts)
    faults: collections.Counter = field(default_factory=collections.Counter)
    reasons: collections.Counter = field(default_factory=collections.Counter)
    resolved: collections.Counter = field(default_factory=collections.Counter)  # by what the server said
    snapshots: int = 0
    stored: int = 0
    wrong: list = field(default_factory=list)

    def outcomes(self):
        return collections.Counter((way, outcome) for way, outcome, _ in self.told.values())

    @property
    def attempts(self):
        return sum(attempts for _, _, attempts in self.told.values())


class Transfer:
    """One transfer between two wallets: what a sender wants to have done, once."""

    def __init__(self):
        self.id = uuid.uuid4()
        self.source, self.target = random.sample(range(1, WALLETS + 1), 2)
        self.amount = random.randint(1, 50)
        self.attempts = 0

    async def __call__(self, session):
        self.attempts += 1
        if await session.scalar(ENTER, {"id": self.id}) is None:
            return  # done already, by an attempt whose outcome was not known
        for wallet, amount in ((self.source, -self.amount), (self.target, self.amount)):
            await session.execute(CHANGE, {"wallet": wallet, "amount": amount})
            await session.execute(POST, {"id": self.id, "wallet": wallet, "amount": amount})


class Senders:
    """Those who transfer, each in a way of its own, and those who look."""

    def __init__(self, db, books):
        self.db, self.books = db, books
        self.pending = {}
        self.app = self._application()

    def _application(self):
        app = FastAPI()
        install(app, self.db)
        session = Annotated[AsyncSession, Depends(self.db.request_session, scope="function")]
        plain, routed = APIRouter(), APIRouter(route_class=Route)

        async def post(session: session, number: Annotated[uuid.UUID, Body(embed=True)]) -> str:
            await self.pending[number](session)
            return STORED

        def marked(**policy):
            async def endpoint(session: session, number: Annotated[uuid.UUID, Body(embed=True)]) -> str:
                return await post(session, number)

            return retrying(**policy)(endpoint)

        plain.post("/plain")(post)
        routed.post("/route")(post)
        routed.post("/retried")(marked())
        routed.post("/idempotent")(marked(idempotent=True))
        routed.post("/resolved")(marked(resolve=True))
        app.include_router(plain)
        app.include_router(routed)
        return app

    def ways(self):
        return {
            "transaction": self._unit(),
            "transaction, idempotent": self._unit(idempotent=True),
            "transaction, resolved": self._unit(resolve=True),
            "transaction, serializable": self._unit(isolation_level="SERIALIZABLE"),
            "session.begin()": self._begin,
            "request, plain": self._request("plain"),
            "request, route class": self._request("route"),
            "request, retried": self._request("retried"),
            "request, idempotent": self._request("idempotent"),
            "request, resolved": self._request("resolved"),
            "cancelled at random": self._cancelled,
        }

    def _unit(self, **options):
        async def send(transfer):
            await self.db.transaction(transfer, deadline=5, **options)
            return STORED

        return send

    async def _begin(self, transfer):
        async with self.db.session.begin() as session:
            await transfer(session)
        return STORED

    def _request(self, way):
        async def send(transfer):
            self.pending[transfer.id] = transfer
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://bank") as client:
                answer = await client.post(f"/{way}", json={"number": str(transfer.id)})
            if answer.status_code == 200:
                return STORED
            name = answer.json()["type"].rpartition(":")[2] if "json" in answer.headers["content-type"] else ""
            self.books.reasons[f"{answer.status_code} {name}"] += 1
            if answer.status_code not in {503, 504}:
                self.books.wrong.append(f"{way} answered {answer.status_code} {name}")
            return UNKNOWN if name == "outcome-unknown" else REFUSED

        return send

    async def _cancelled(self, transfer):
        task = asyncio.create_task(self.db.transaction(transfer))
        await asyncio.wait({task}, timeout=random.uniform(0, 0.1))
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=random.choice([0, 0.001, 1]))
        return CANCELLED if task.cancelled() else task.result() or STORED

    async def send(self, way, send, until):
        while time.monotonic() < until:
            transfer = Transfer()
            try:
                outcome = await send(transfer)
            except OutcomeUnknownError:
                outcome = UNKNOWN
            except Exception as error:  # noqa: BLE001 - it is classified, and noted when it is none of ours
                outcome = REFUSED
                fault = classify(error)
                self.books.reasons[fault.name] += 1
                if fault.status == 500:
                    self.books.wrong.append(f"{way} raised {error!r}")
            self.books.told[transfer.id] = (way, outcome, transfer.attempts)
            self.pending.pop(transfer.id, None)

    async def look(self, until):
        """Look at all balances in one moment, again and again: no moment shows half a transfer."""
        while time.monotonic() < until:
            await asyncio.sleep(0.05)
            try:
                async with self.db.read(snapshot=True) as session:
                    balance = await session.scalar(text("SELECT sum(balance) FROM wallet"))
                    posted = await session.scalar(text("SELECT coalesce(sum(amount), 0) FROM posting"))
            except Exception as error:  # noqa: BLE001 - reads may fail, but say so
                if not isinstance(error, VerdigrisError) and classify(error).status == 500:
                    self.books.wrong.append(f"a reader raised {error!r}")
                continue
            self.books.snapshots += 1
            if (balance, posted) != (TOTAL, 0):
                self.books.wrong.append(f"a snapshot saw {balance} in the wallets and {posted} in the postings")


class Breaker:
    """What goes wrong meanwhile: one fault after the other, at random, each healed before the next."""

    def __init__(self, postgres, proxy, books):
        self.postgres, self.proxy, self.books = postgres, proxy, books
        self.columns = itertools.count()

    async def run(self, until):
        faults = {
            self.reply_to_commit_lost: 6,
            self.commit_lost: 4,
            self.reply_to_commit_held: 2,
            self.cut: 3,
            self.black_hole: 2,
            self.slow_network: 2,
            self.refused: 2,
            self.terminated: 4,
            self.killed: 2,
            self.frozen: 2,
            self.one_frozen: 2,
            self.restarted: 1,
            self.stopped_for_a_while: 1,
            self.schema_changed: 3,
        }
        while time.monotonic() < until:
            await asyncio.sleep(random.uniform(0.3, 1.5))
            fault = random.choices(list(faults), list(faults.values()))[0]
            self.books.faults[fault.__name__.replace("_", " ")] += 1
            with contextlib.suppress(ProcessLookupError, IndexError):  # a backend that ended before it was struck
                await fault()

    async def heal(self):
        self.proxy.fates.clear()
        self.proxy.delay = 0
        self.proxy.flow()
        self.postgres.thaw()
        await self.proxy.accept()
        await asyncio.to_thread(self.postgres.start)

    async def reply_to_commit_lost(self):
        self.proxy.commit(Fate.REPLY_LOST)

    async def commit_lost(self):
        self.proxy.commit(Fate.LOST)

    async def reply_to_commit_held(self):
        self.proxy.commit(Fate.REPLY_HELD)

    async def cut(self):
        self.proxy.cut()

    async def black_hole(self):
        self.proxy.black_hole()
        await asyncio.sleep(random.uniform(0.1, 1.2))
        self.proxy.flow()

    async def slow_network(self):
        self.proxy.delay = 0.02
        await asyncio.sleep(0.5)
        self.proxy.delay = 0

    async def refused(self):
        await self.proxy.refuse()
        self.proxy.cut()
        await asyncio.sleep(random.uniform(0.1, 1))
        await self.proxy.accept()

    async def _victim(self):
        return random.choice(await self.postgres.backends("postgres"))["pid"]

    async def terminated(self):
        await self.postgres.run("SELECT pg_terminate_backend($1)", await self._victim())

    async def killed(self):
        self.postgres.kill_backend(await self._victim())

    async def frozen(self):
        self.postgres.freeze()
        await asyncio.sleep(random.uniform(0.1, 1.2))
        self.postgres.thaw()

    async def one_frozen(self):
        self.postgres.freeze(await self._victim())
        await asyncio.sleep(random.uniform(0.1, 1.2))
        self.postgres.thaw()

    async def restarted(self):
        await asyncio.to_thread(self.postgres.restart, at_once=True)

    async def stopped_for_a_while(self):
        await asyncio.to_thread(self.postgres.stop)
        await asyncio.sleep(random.uniform(0, 1))
        await asyncio.to_thread(self.postgres.start)

    async def schema_changed(self):
        with contextlib.suppress(Exception):  # it waits for locks like anybody, and may lose
            await self.postgres.run(
                f"SET lock_timeout = '200ms'; ALTER TABLE transfer ADD COLUMN c{next(self.columns)} int"
            )


@contextlib.contextmanager
def resolved(books):
    """Count what the server said of COMMITs that got no answer: the log tells it."""

    def told(record):
        if "asked later" in record.msg:
            books.resolved[record.getMessage().rpartition(": ")[2]] += 1
        return True

    log = logging.getLogger("verdigris")
    log.addFilter(told)
    try:
        yield
    finally:
        log.removeFilter(told)


async def run(seconds):
    """Run the ledger for so long, and return the books; `wrong` is empty if every promise was kept."""
    books = Books()
    with Postgres() as postgres, resolved(books):
        for statement in SCHEMA:
            await postgres.run(statement)
        async with Proxy("127.0.0.1", postgres.port) as proxy:
            db = Database(
                proxy.url(postgres.url_for("postgres")),
                pool_size=6,
                max_overflow=2,
                pool_timeout=2,
                connect_timeout=1,
                command_timeout=1.5,
            )
            senders, breaker = Senders(db, books), Breaker(postgres, proxy, books)
            until = time.monotonic() + seconds
            async with asyncio.TaskGroup() as group:
                for way, send in senders.ways().items():
                    for _ in range(3 if "resolved" in way else 1):  # few COMMITs are lost: enough of them are asked for
                        group.create_task(senders.send(way, send, until))
                group.create_task(senders.look(until))
                group.create_task(breaker.run(until))
            await breaker.heal()
            await _audit(postgres, db, books)
    return books


async def _audit(postgres, db, books):
    async def quiet():
        busy = [
            each for each in await postgres.backends("postgres", busy=True) if "pg_stat_activity" not in each["query"]
        ]
        return db.pool_status().in_use == 0 and not busy

    try:
        await eventually(quiet, seconds=15)
    except TimeoutError:
        books.wrong.append(f"leaked: {db.pool_status().in_use} slots, {await postgres.backends('postgres', busy=True)}")
    postings = await postgres.run(
        "SELECT t.id, count(p.*) AS number, coalesce(sum(p.amount), 0) AS total"
        " FROM transfer t LEFT JOIN posting p ON p.transfer = t.id GROUP BY t.id"
    )
    stored = {row["id"] for row in postings}
    books.wrong += [f"half done or doubled: {dict(row)}" for row in postings if (row["number"], row["total"]) != (2, 0)]
    for number, (way, outcome, _) in books.told.items():
        if outcome == STORED and number not in stored:
            books.wrong.append(f"lost: {way} was told that {number} is stored")
        if outcome == REFUSED and number in stored:
            books.wrong.append(f"stored although refused: {way}, {number}")
    books.wrong += [f"nobody sent {number}" for number in stored - set(books.told)]
    balances = await postgres.run(
        f"SELECT w.id, w.balance, {TOTAL // WALLETS} + coalesce(sum(p.amount), 0) AS posted"
        " FROM wallet w LEFT JOIN posting p ON p.wallet = w.id GROUP BY w.id, w.balance"
    )
    books.wrong += [f"wallet off its postings: {dict(row)}" for row in balances if row["balance"] != row["posted"]]
    await db.dispose()

    async def gone():
        return len(await postgres.backends("postgres")) == 1  # the one that asks

    try:
        await eventually(gone, seconds=10)
    except TimeoutError:
        books.wrong.append(f"left running: {await postgres.backends('postgres')}")
    books.stored = len(stored)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    random.seed(options.seed)
    logging.getLogger().addHandler(logging.NullHandler())  # each refusal is logged; here they are counted
    books = asyncio.run(run(options.seconds))
    outcomes = books.outcomes()
    for way in sorted({way for way, _ in outcomes}):
        print(f"{way:28}", *(f"{outcomes[way, each]:6} {each}" for each in (STORED, REFUSED, UNKNOWN, CANCELLED)))
    print(f"{len(books.told)} transfers sent in {books.attempts} attempts, {books.stored} stored")
    print(f"{books.snapshots} snapshots of all balances")
    print("resolved:", json.dumps(books.resolved.most_common()))
    print("faults:", json.dumps(books.faults.most_common()))
    print("refused for:", json.dumps(books.reasons.most_common()))
    print(f"{len(books.wrong)} wrong", *books.wrong[:30], sep="\n  ")
    raise SystemExit(bool(books.wrong))


if __name__ == "__main__":
    main()
