"""The faults, one function a row: each makes it, looks at what the client got and at what is stored, and judges."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
from tests.faults.rig import Fate

from faults.settings import OVERFLOW, POOL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faults.bench import Answer, Bench

    Row = Callable[[Bench], Awaitable["Cell"]]


@dataclass(frozen=True, slots=True)
class Cell:
    """What was seen, and whether it is the outcome that docs/faults.md asks for."""

    text: str
    good: bool

    def __str__(self) -> str:
        return f"{'✓' if self.good else '✗'} {self.text}"


_TIMES = {0: "not stored", 1: "stored"}
ROWS: dict[str, tuple[str, Row]] = {}


def row(title: str) -> Callable[[Row], Row]:
    def keep(function: Row) -> Row:
        ROWS[function.__name__] = (title, function)
        return function

    return keep


def _away_or_done(answer: Answer) -> bool:
    return answer.status == 200 or answer.is_away


async def _counted(bench: Bench, answer: Answer) -> Cell:
    """Judge a write: what the client was told is what is stored, and a failure says to come back."""
    stored = await bench.balance()
    told = int(answer.status == 200)
    wrong = "" if stored == told else f", {_TIMES.get(stored, 'stored twice')}"
    return Cell(f"{answer}{wrong}", _away_or_done(answer) and not wrong)


@row("COMMIT fails (deferred constraint)")
async def commit_fails(bench: Bench) -> Cell:
    answer = await bench.ask("deferred")
    return Cell(f"{answer}{', nothing stored' if answer.status == 200 else ''}", 400 <= answer.status < 500)


@row("An own write, read right after the 200")
async def visible(bench: Bench) -> Cell:
    late = 0
    connection = await asyncpg.connect(bench.postgres.url_for("postgres").replace("+asyncpg", ""))
    for number in range(1, 51):
        await bench.ask("add")
        late += await connection.fetchval("SELECT balance FROM account WHERE id = 1") != number
    await connection.close()
    return Cell(f"{late} of 50 not there yet" if late else "always there", not late)


@row("A swallowed database error, then success")
async def swallowed(bench: Bench) -> Cell:
    answer = await bench.ask("swallowed")
    return Cell(f"{answer}{', nothing stored' if answer.status == 200 else ''}", answer.status >= 500)


@row("A returned 409 after a write")
async def returned(bench: Bench) -> Cell:
    await bench.ask("returned")
    stored = await bench.balance()
    return Cell("kept" if stored else "undone", not stored)


@row("A raised HTTPException after a write")
async def raised(bench: Bench) -> Cell:
    await bench.ask("raised")
    stored = await bench.balance()
    return Cell("kept" if stored else "undone", not stored)


@row("A duplicate key")
async def duplicate(bench: Bench) -> Cell:
    answer = await bench.ask("duplicate")
    return Cell(str(answer), answer.status == 409)


@row("A NUL byte from the client (22021)")
async def nul(bench: Bench) -> Cell:
    answer = await bench.ask("nul")
    return Cell(str(answer), 400 <= answer.status < 500)


@row("Two requests deadlock (40P01)")
async def deadlock(bench: Bench) -> Cell:
    answers = await asyncio.gather(bench.ask("deadlock"), bench.ask("deadlock"))
    done = sum(answer.status == 200 for answer in answers)
    right = (await bench.balance(1), await bench.balance(2)) == (done, done)
    text = ", ".join(sorted(map(str, answers)))
    return Cell(text if right else f"{text}, wrongly stored", right and all(map(_away_or_done, answers)))


@row("Two requests conflict (40001)")
async def serializable(bench: Bench) -> Cell:
    answers = await asyncio.gather(bench.ask("serializable"), bench.ask("serializable"))
    done = sum(answer.status == 200 for answer in answers)
    lost = await bench.balance() != done
    text = ", ".join(sorted(map(str, answers)))
    return Cell(f"{text}, an update lost" if lost else text, not lost and all(map(_away_or_done, answers)))


@row("The pool is exhausted")
async def exhausted(bench: Bench) -> Cell:
    holders = [asyncio.create_task(bench.ask("long")) for _ in range(POOL + OVERFLOW)]
    await bench.backend_of("pg_sleep(1.5)")
    await asyncio.sleep(0.5)
    answer = await bench.ask("add")
    await asyncio.gather(*holders)
    return Cell(str(answer), answer.is_away)


@row("statement_timeout (57014)")
async def endless(bench: Bench) -> Cell:
    answer = await bench.ask("endless")
    return Cell(str(answer), answer.status == 504)


@row("The server restarted while the pool was idle")
async def restarted(bench: Bench) -> Cell:
    await asyncio.to_thread(bench.postgres.restart, at_once=True)
    return await _counted(bench, await bench.ask("add"))


@row("The backend is ended in mid-query (57P01)")
async def ended(bench: Bench) -> Cell:
    return await _counted(bench, await bench.ask("killed"))


@row("`kill -9` of the backend")
async def killed(bench: Bench) -> Cell:
    asking = asyncio.create_task(bench.ask("slow"))
    bench.postgres.kill_backend(await bench.backend_of("pg_sleep"))
    return await _counted(bench, await asking)


@row("The server is stopped, and started again")
async def stopped(bench: Bench) -> Cell:
    await asyncio.to_thread(bench.postgres.stop, at_once=True)
    asking = asyncio.create_task(bench.ask("add"))
    await asyncio.wait({asking}, timeout=3)
    await asyncio.to_thread(bench.postgres.start)
    answer = await asking
    await asyncio.sleep(1.0)
    after = await bench.ask("add")
    return Cell(f"{answer}, then {after}", _away_or_done(answer) and after.status == 200)


async def _commit_meets(bench: Bench, fate: Fate) -> Cell:
    bench.proxy.commit(fate)
    answer = await bench.ask("add")
    await asyncio.sleep(0.3)
    stored = await bench.balance()
    says = "outcome-unknown" in answer.body
    what = "says that it is unknown" if says else _TIMES.get(stored, "stored twice")
    return Cell(f"{answer}, {what}", says or (answer.status == 200 and stored == 1))


@row("The answer to COMMIT is lost")
async def reply_lost(bench: Bench) -> Cell:
    return await _commit_meets(bench, Fate.REPLY_LOST)


@row("COMMIT itself is lost")
async def commit_lost(bench: Bench) -> Cell:
    return await _commit_meets(bench, Fate.LOST)


@row("The network swallows everything in mid-query")
async def black_hole(bench: Bench) -> Cell:
    asking = asyncio.create_task(bench.ask("slow"))
    await bench.backend_of("pg_sleep")
    bench.proxy.black_hole()
    answer = await asking
    bench.proxy.flow()
    return Cell(str(answer), answer.status in {503, 504})


@row("Frozen server: a request that has just begun")
async def frozen(bench: Bench) -> Cell:
    bench.postgres.freeze()
    answer = await bench.ask("add")
    bench.postgres.thaw()
    await asyncio.sleep(0.5)
    after = await bench.ask("add")
    return Cell(f"{answer}, then {after}", answer.status in {503, 504} and after.status == 200)


@row("The schema changes under cached plans")
async def schema(bench: Bench) -> Cell:
    await asyncio.gather(*(bench.ask("star") for _ in range(POOL + OVERFLOW)))
    await bench.postgres.run("ALTER TABLE account ADD COLUMN note text")
    answer = await bench.ask("star")
    await asyncio.gather(*(bench.ask("star") for _ in range(POOL + OVERFLOW)))
    after = await bench.ask("star")
    return Cell(f"{answer}, then {after}", _away_or_done(answer) and after.status == 200)


@row("A primary that became read-only, and is one again")
async def read_only(bench: Bench) -> Cell:
    await bench.postgres.run("ALTER DATABASE postgres SET default_transaction_read_only = on")
    bench.proxy.cut()
    await asyncio.sleep(0.2)
    answer = await bench.ask("add")
    await bench.postgres.run("BEGIN READ WRITE; ALTER DATABASE postgres RESET default_transaction_read_only; COMMIT")
    after = [await bench.ask("add") for _ in range(3)]
    well = all(each.status == 200 for each in after)
    return Cell(f"{answer}, then {'200' if well else f'{after[-1]} for ever'}", answer.is_away and well)


@row("The client hangs up in a stream that writes")
async def hung_up(bench: Bench) -> Cell:
    answer = await bench.hang_up("streamed")
    await asyncio.sleep(1.0)
    lines, left = await bench.balance(), await bench.in_use()
    if answer.body == "refused" or answer.status >= 500:
        return Cell(f"{answer}: refused before the first byte", not left)
    text = f"half of it committed ({lines} lines)" if lines else "rolled back"
    return Cell(f"{text}{', connection lost' if left else ''}", not lines and not left)


@row("… and a statement of it is running")
async def stormed(bench: Bench) -> Cell:
    answer = await bench.hang_up("stormed")
    await asyncio.sleep(0.6)
    runs, left = bool(await bench.running("stormed")), await bench.in_use()
    if answer.body != "line":
        return Cell(f"{answer}: refused before the first byte", not left)
    return Cell(f"{'runs on' if runs else 'stopped'}{', connection lost' if left else ''}", not runs and not left)


@row("A background task writes through the session")
async def background(bench: Bench) -> Cell:
    answer = await bench.ask("background")
    left = await bench.in_use()
    stored = await bench.balance()
    if answer.status >= 500:
        return Cell(f"{answer}: refused", not stored and not left)
    text = f"{answer}, {'stored' if stored else 'lost'}{', connection lost' if left else ''}"
    return Cell(text, bool(stored) and not left)


@row("Two tasks in one session")
async def shared(bench: Bench) -> Cell:
    answer = await bench.ask("shared")
    stored = await bench.balance()
    well = await bench.is_well()
    text = "not detected" if answer.status == 200 else f"{answer}"
    return Cell(f"{text}{'' if well else ', pool broken'}", answer.status >= 500 and not stored and well)


@row("SET left in the session")
async def left(bench: Bench) -> Cell:
    await bench.ask("left")
    answers = [await bench.ask("add") for _ in range(3)]
    wrong = next((answer for answer in answers if answer.status != 200), None)
    return Cell("reaches the next request" if wrong else "cleared", wrong is None)
