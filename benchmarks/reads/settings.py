"""What all peers share, so that none has more connections than another."""

#: Connections that a peer may open to PostgreSQL.
POOL = 16
