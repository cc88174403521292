"""Mapped classes: columns, relationships and the graph that they make, indexes."""
