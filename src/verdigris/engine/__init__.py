"""The engine under a `Database`: its dialect, its pool, and the connection of asyncpg with waits that end.

Nothing here knows of sessions.
"""
