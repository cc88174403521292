"""Section 5: a response model says what is loaded, and what is read as JSON.

`plan(Entity, Schema)` is a pure function: it says what the schema reads from the entity and how each relationship is
loaded, as a value that can be printed and compared. `load` turns that value into SQLAlchemy's loader option, and
`explain_plan` says how `db.json()` reads the same pair.
"""

from __future__ import annotations

from verdigris.loading.json.api import JSONRead, explain_plan
from verdigris.loading.options import load
from verdigris.loading.planner import DEPTH, plan
from verdigris.loading.values import Plan, Step

__all__ = ["DEPTH", "JSONRead", "Plan", "Step", "explain_plan", "load", "plan"]
