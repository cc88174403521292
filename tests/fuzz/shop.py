"""The shop on a PostgreSQL of its own, and schemathesis before it; see run beside this file."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from verdigris import embedded
from verdigris.demo.stage import HOST, Stage, free_port, shop_directory

HERE = Path(__file__).parent
SMALL = """
import asyncio
from shop.database import db
from shop.seed import Trade, seed

async def main():
    await seed(db, trade=Trade(customers=60, products=80, orders=120, reviews=90))
    await db.dispose()

asyncio.run(main())
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/fuzz/run", description=__doc__)
    parser.add_argument("schemathesis", help=argparse.SUPPRESS)
    parser.add_argument("--examples", default="25", help="requests made up for each operation, and each phase")
    parser.add_argument("--seed", default="1")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, embedded.server(durable=False) as server:
        stage = Stage(shop_directory(), str(server.url), free_port(None), Path(directory))
        stage.migrate()
        subprocess.run([sys.executable, "-c", SMALL], cwd=stage.shop, env=stage.environment, check=True, timeout=120)
        with stage.served(record=False):
            return asked(stage, arguments)


def asked(stage: Stage, arguments: argparse.Namespace) -> int:
    """Run schemathesis against the shop; return its exit code, which is 1 after an answer of 5xx."""
    command = [
        *(arguments.schemathesis, "run", f"http://{HOST}:{stage.port}/openapi.json", "--no-color"),
        *("--checks", "not_a_server_error", "--continue-on-failure", "--request-timeout", "20"),
        *("--max-examples", arguments.examples, "--seed", arguments.seed, "--generation-database", "none"),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    code = subprocess.run(command, cwd=stage.output, env=os.environ | hooks, check=False).returncode
    log = (stage.output / "shop.log").read_text("utf-8", "replace")
    errors = [line for line in log.splitlines() if " failed: " in line or "Traceback" in line]
    print(*errors[:20], sep="\n")
    return code or bool(errors)


if __name__ == "__main__":
    sys.exit(main())
