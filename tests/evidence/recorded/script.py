"""A program that reads a little, in its own process and in a child's, and ends in the way its arguments say."""

import asyncio
import multiprocessing
import os
import pathlib
import signal
import sys
import time

from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])
Session = async_sessionmaker(engine)


async def ask(times):
    async with Session() as session:
        for number in range(times):
            await session.execute(text("select cast(:number as int)"), {"number": number})
    await engine.dispose()


def child():
    asyncio.run(ask(3))


if __name__ == "__main__":
    asyncio.run(ask(5))
    how, end = sys.argv[1:3]
    if how != "alone":
        process = multiprocessing.get_context(how).Process(target=child)
        process.start()
        process.join()
    if end == "wait":
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        time.sleep(60)
    elif end == "at once":
        os._exit(3)
    elif end == "as a worker":  # uvicorn's under gunicorn sets the default and ends itself by the signal that it got
        assert signal.getsignal(signal.SIGTERM) is signal.signal(signal.SIGTERM, signal.SIG_DFL) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.raise_signal(signal.SIGTERM)
    elif end == "becomes":
        os.execv(sys.executable, [sys.executable, __file__, "alone", "0"])
    elif end == "forks":
        if os.fork() == 0:
            child()
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    elif end.startswith(os.sep):
        for _ in range(5):
            asyncio.run(ask(1))
            time.sleep(0.5)
        pathlib.Path(end).touch()
    elif end == "raise":
        raise RuntimeError(end)
    elif end == "kill":
        time.sleep(2.5)
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        sys.exit(int(end))
