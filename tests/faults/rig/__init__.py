"""Real faults for the tests: servers to freeze, kill and promote, a proxy to lose answers in, PgBouncer, a full disk.

Nothing is imitated: the processes, sockets and signals are the system's own. Whatever is started here ends with its
block, thawed first if it was frozen.
"""

from tests.faults.rig.disk import small_tablespace
from tests.faults.rig.pgbouncer import PgBouncer
from tests.faults.rig.postgres import Postgres, Standby
from tests.faults.rig.proxy import Fate, Proxy
from tests.faults.rig.waits import NotHere, eventually, within

__all__ = ["Fate", "NotHere", "PgBouncer", "Postgres", "Proxy", "Standby", "eventually", "small_tablespace", "within"]
