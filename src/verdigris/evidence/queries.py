"""The questions to a server's catalogue (https://www.postgresql.org/docs/current/catalogs.html); all only read."""

from __future__ import annotations

SERVER = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
       current_database()::text AS database, current_user::text AS "user", pg_is_in_recovery() AS in_recovery,
       coalesce((SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user), -1) AS role_limit,
       coalesce((SELECT datconnlimit FROM pg_database WHERE datname = current_database()), -1) AS database_limit,
       (SELECT to_char(stats_reset AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
          FROM pg_stat_database WHERE datname = current_database()) AS statistics_since
"""

SETTINGS = """
SELECT name, setting, reset_val FROM pg_settings WHERE name = ANY (ARRAY[
  'max_connections', 'superuser_reserved_connections', 'reserved_connections', 'idle_session_timeout',
  'idle_in_transaction_session_timeout', 'statement_timeout', 'lock_timeout', 'transaction_timeout',
  'log_min_duration_statement'])
"""

CLIENTS = """
SELECT nullif(application_name, '') AS application_name, datname::text AS database, usename::text AS "user",
       count(*) AS count, count(*) FILTER (WHERE state = 'active') AS active,
       count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle_in_transaction
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND coalesce(backend_type, 'client backend') = 'client backend'
GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3
"""

_OWN = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"

TABLES = f"""
SELECT n.nspname::text AS schema, c.relname::text AS name, pg_table_is_visible(c.oid) AS visible,
       greatest(c.reltuples::bigint, s.n_live_tup, 0) AS rows,
       c.relpages::bigint * current_setting('block_size')::bigint AS bytes,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
       coalesce(s.seq_scan, 0) AS sequential_scans, coalesce(s.seq_tup_read, 0) AS sequential_rows,
       coalesce(s.idx_scan, 0) AS index_scans, coalesce(s.last_analyze, s.last_autoanalyze) IS NOT NULL AS analyzed
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'p') AND {_OWN} ORDER BY 1, 2
"""  # noqa: S608 - made of constants

INDEXES = f"""
SELECT n.nspname::text AS schema, t.relname::text AS "table", c.relname::text AS name,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, place)
             LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum <> 0
             WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS columns,
       i.indisunique AS "unique", i.indisprimary AS "primary",
       EXISTS (SELECT FROM pg_constraint k
               WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) AS "constraint",
       i.indisvalid AND i.indisready AS valid, pg_get_expr(i.indpred, i.indrelid) AS predicate,
       i.indexprs IS NOT NULL AS expression, m.amname::text AS method,
       c.relpages::bigint * current_setting('block_size')::bigint AS bytes, coalesce(s.idx_scan, 0) AS scans,
       pg_get_indexdef(i.indexrelid) AS definition,
       concat_ws('|', m.amname, i.indkey, i.indclass, i.indcollation, i.indoption,
                 pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)) AS alike
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_am m ON m.oid = c.relam
LEFT JOIN pg_stat_user_indexes s ON s.indexrelid = i.indexrelid
WHERE {_OWN} AND t.relkind IN ('r', 'p', 'm') ORDER BY 1, 2, 3
"""  # noqa: S608 - as above

FOREIGN_KEYS = f"""
SELECT n.nspname::text AS schema, t.relname::text AS "table", k.conname::text AS name,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c(attnum, place)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.attnum ORDER BY c.place) AS columns,
       k.confrelid::regclass::text AS target,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS c(attnum, place)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.attnum
             ORDER BY c.place) AS target_columns,
       k.confdeltype::text AS on_delete
FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND {_OWN} ORDER BY 1, 2, 3
"""  # noqa: S608 - as above

STATEMENTS = """
SELECT query, calls, total_exec_time AS total, mean_exec_time AS mean, max_exec_time AS max, rows
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query IS NOT NULL
ORDER BY total_exec_time DESC LIMIT 200
"""
