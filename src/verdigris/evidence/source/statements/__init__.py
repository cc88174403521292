"""Statements: loader options, columns that they filter by, queries in loops, writes of many rows."""
