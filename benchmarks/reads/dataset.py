"""The one data set: 20,000 orders with a customer and five lines each, texts and times as untidy as real ones."""

from __future__ import annotations

import asyncpg

ORDERS = 20_000

TABLES = """
create table customer (id int primary key, name text not null, email text not null);
create table orders (
    id int primary key, number text not null, status text not null, placed_at timestamptz not null,
    total numeric(10, 2) not null, note text, customer_id int not null references customer
);
create table line (
    id int primary key, order_id int not null references orders, sku text not null, quantity int not null,
    unit_price numeric(10, 2) not null
);
"""

ROWS = f"""
insert into customer
    select n, 'Customer ' || n || case n % 5 when 0 then ' Müller & "Söhne"' else '' end, 'c' || n || '@example.org'
    from generate_series(1, 1000) n;
insert into orders
    select n, 'A-' || lpad(n::text, 8, '0'), (array['new', 'paid', 'sent', 'returned'])[n % 4 + 1],
        timestamptz '2026-01-01 08:00+00' + n * interval '97.013500 seconds', (n % 9973) / 7.0 + 10,
        case n % 3 when 0 then E'leave it\\nat the door – bell' || chr(92) || ' is broken' end, n * 7919 % 1000 + 1
    from generate_series(1, {ORDERS}) n;
insert into line
    select n, (n - 1) / 5 + 1, 'SKU-' || lpad((n * 31 % 5000)::text, 5, '0'), n % 9 + 1, (n % 4999) / 3.0 + 1
    from generate_series(1, {ORDERS * 5}) n;
create index on line (order_id);
create index on orders (customer_id);
vacuum analyze;
"""


async def fill(dsn: str) -> None:
    """Create the tables and their rows."""
    connection = await asyncpg.connect(dsn)
    try:
        for script in (TABLES, ROWS):
            for statement in script.split(";\n"):
                if statement.strip():
                    await connection.execute(statement)
    finally:
        await connection.close()
