"""The JSON read: a `select()` and a response model compiled to one statement in which PostgreSQL writes the answer."""
