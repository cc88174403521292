"""A disk that is full: a tablespace on a small file system of its own."""

import contextlib
import subprocess
import sys

from tests.faults.rig.waits import NotHere
from verdigris.embedded.account import server_account


@contextlib.asynccontextmanager
async def small_tablespace(postgres, *, name="small", megabytes=2):
    """Make a tablespace of a few megabytes; drop what lies in it before the block ends."""
    place = postgres.home / name
    place.mkdir()
    if not sys.platform.startswith("linux"):
        raise NotHere("a small file system is mounted by Linux' tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        place.rmdir()
        raise NotHere(f"a file system can be mounted by root only ({mounted.stderr.strip()})")
    try:
        server_account().own(place)
        await postgres.run(f"CREATE TABLESPACE {name} LOCATION '{place}'")
        yield name
        await postgres.run(f"DROP TABLESPACE {name}")
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()
