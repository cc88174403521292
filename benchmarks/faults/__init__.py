"""The same faults before every peer, over HTTP: see README.md."""
