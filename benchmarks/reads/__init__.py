"""Reads behind FastAPI: this library, its peers and the floors, in the same run on the same data."""
