"""`python -m verdigris`: the command line."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - from a clone: installers put it nowhere else
        told = "verdigris: Python 3.11 is the oldest that it runs on; {} is {}\n"
        sys.stderr.write(told.format(sys.executable, sys.version.split()[0]))
        sys.exit(2)

    from verdigris.cli import main

    sys.exit(main())
