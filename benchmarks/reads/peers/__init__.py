"""One file a peer: its docstring's first line is its name in the table, `app(url)` its application.

A peer answers `GET /orders/{id}`, `GET /orders?after=&limit=` and `GET /nested?after=&limit=`; a scenario whose path it
answers with 404 is one that it does not take part in. Files that begin with `floor_` answer one constant to all.
"""
