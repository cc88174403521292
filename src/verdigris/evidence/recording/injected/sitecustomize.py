"""Starts the recorder in a process that `verdigris record` began, then runs the sitecustomize that this one hides.

Python imports a module of this name when it starts (https://docs.python.org/3/library/site.html). The directory of
this file is the first on PYTHONPATH; nothing else lies in it. The process may belong to an environment that has no
verdigris: the package is then taken from where this file lies.
"""

# ruff: noqa: INP001 - a directory of PYTHONPATH, no package
import importlib.util
import os
import sys
from importlib.machinery import PathFinder

_HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib costs every process ten milliseconds
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))  # noqa: PTH120 - as above
_OLDEST = (3, 11)  # what follows is read by every Python from 3.5


def _record() -> None:
    if "VERDIGRIS_RECORDING" not in os.environ:
        return
    if sys.version_info < _OLDEST:
        _tell_old(os.environ["VERDIGRIS_RECORDING"])
        return
    try:
        if importlib.util.find_spec("verdigris.evidence.recording.child") is None:
            raise ImportError("this verdigris records nothing")  # noqa: TRY301 - same cure for both
    except ImportError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "verdigris"]:
            del sys.modules[name]
        spec = importlib.util.spec_from_file_location(
            "verdigris",
            os.path.join(_PACKAGE, "__init__.py"),  # noqa: PTH118 - as above
            submodule_search_locations=[_PACKAGE],
        )
        if spec is None or spec.loader is None:
            return
        module = importlib.util.module_from_spec(spec)
        sys.modules["verdigris"] = module
        spec.loader.exec_module(module)
    from verdigris.evidence.recording.child import start

    start()


def _tell_old(directory: str) -> None:
    """Leave word of a Python that cannot run the recorder; the command's closing line tells of all of them at once."""
    name = "{}.python{}.{}".format(os.getpid(), *sys.version_info[:2])
    try:
        with open(os.path.join(directory, name), "w"):  # noqa: PTH118, PTH123 - as above
            pass
    except OSError:  # the recording is over, and this process outlived it
        pass


def _next() -> None:
    others = [path for path in sys.path if os.path.realpath(path or os.curdir) != _HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


try:
    _record()
except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
    sys.stderr.write(f"verdigris: this process is not recorded: {type(error).__name__}: {error}\n")
_next()
