import os
import signal
from importlib.metadata import entry_points
from pathlib import Path

from hypothesis import settings

from verdigris.embedded import Machine, provider

PLUGIN = "verdigris.pytest_plugin"
installed = any(each.value == PLUGIN for each in entry_points(group="pytest11"))
# an installed verdigris brings its plugin along; with PYTHONPATH=src alone it has to be named
pytest_plugins = () if installed else (PLUGIN,)

# Where the run itself ignores a signal (nohup, a shell's background), the programs that tests start would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The programs of another PostgreSQL for the servers of this run: make test POSTGRES=/usr/lib/postgresql/15/bin
if programs := os.environ.get("VERDIGRIS_TEST_PROGRAMS"):
    provider.PROVIDERS = (Machine(Path(programs)),)

settings.register_profile("suite", deadline=None)  # a loaded machine is slow, not wrong
settings.load_profile("suite")
