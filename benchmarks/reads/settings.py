"""What all peers share, so that none has more connections than another."""

import os

#: The environment variable by which a run gives its peers another number.
POOL_VARIABLE = "READS_POOL"
USUAL_POOL = 16
#: Connections that a peer may open to PostgreSQL.
POOL = int(os.environ.get(POOL_VARIABLE, USUAL_POOL))
