"""Names under which the recorder leaves its notes on SQLAlchemy's objects."""

from __future__ import annotations

KEY = "_verdigris_recording"  # in a dialect's, session's and factory's __dict__, and in a connection's info
LOOP = "_verdigris_loop"  # in a connection's info
ORIGIN = "_verdigris_origin"  # an execution option, and an attribute of an object's state
