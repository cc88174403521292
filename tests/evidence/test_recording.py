"""What a recording says of a service that never heard of it; one drive through all its routes is looked at here."""

from __future__ import annotations

from tests.evidence.conftest import line_of


def of(facts, **wanted):
    """Return the facts that have these values."""
    return [fact for fact in facts if all(getattr(fact, name) == value for name, value in wanted.items())]


def the(facts, **wanted):
    """Return the only fact that has these values."""
    found = of(facts, **wanted)
    assert len(found) == 1, (wanted, found)
    return found[0]


def test_the_recorder_itself_had_no_trouble(recording):
    assert recording.recorder_errors == ()
    assert recording.processes == 1
    assert recording.versions["sqlalchemy"].startswith("2.")


def test_an_engine_is_known_by_its_line_and_its_settings(recording):
    engine = the(recording.engines, site=line_of("engine = create_async_engine"))

    assert (engine.dialect, engine.driver, engine.is_async) == ("postgresql", "asyncpg", True)
    assert (engine.pool_size, engine.max_overflow, engine.pool_timeout, engine.pool_recycle) == (3, 2, 0.5, 900)
    assert (engine.pre_ping, engine.created, engine.created_in_requests) == (True, 1, 0)


def test_no_password_is_in_a_recording(recording, postgres, tmp_path):
    recording.save(tmp_path / "recording.json")

    text = (tmp_path / "recording.json").read_text()

    assert postgres.url.split(":")[2].split("@")[0] not in text
    assert ":***@" in text


def test_values_are_not_in_a_recording(recording, tmp_path):
    recording.save(tmp_path / "recording.json")

    text = (tmp_path / "recording.json").read_text()

    assert "early" not in text.replace("-early", "").replace("nearly", "")
    assert "values ('o1'" not in text


def test_engines_and_factories_built_in_a_request_are_counted_as_such(recording):
    engine = the(recording.engines, site=line_of("mine = create_async_engine"))
    factory = the(recording.factories, site=line_of("make = async_sessionmaker"))

    assert (engine.created, engine.created_in_requests, engine.disposed) == (2, 2, 2)
    assert (factory.created, factory.created_in_requests, factory.engine) == (2, 2, engine.id)


def test_a_factory_tells_what_its_sessions_are_made_with(recording):
    factory = the(recording.factories, site=line_of("Session = async_sessionmaker"))

    assert factory.factory_class == "sqlalchemy.ext.asyncio.session:async_sessionmaker"
    assert factory.session_class == "sqlalchemy.ext.asyncio.session:AsyncSession"
    assert (factory.expire_on_commit, factory.autoflush, factory.close_resets_only) == (False, True, True)


def test_sessions_are_counted_by_the_line_that_opens_them(recording):
    sessions = the(recording.sessions, site=line_of("async with Session() as session:"))

    assert sessions.factory == line_of("Session = async_sessionmaker")
    assert sessions.is_async
    assert sessions.created == sessions.used == sessions.closed > 10
    assert sessions.abandoned == 0


def test_a_session_that_nobody_closes_is_abandoned_and_its_connection_outlives_the_request(recording):
    sessions = the(recording.sessions, site=line_of("session = Session()"))
    request = the(recording.requests, route="GET /orders-leak")

    assert (sessions.closed, sessions.abandoned) == (0, 1)
    assert request.left_checked_out == 1
    assert list(request.left_checked_out_sites) == [line_of('text("select 1")')]


def test_requests_are_counted_by_route_template(recording):
    request = the(recording.requests, route="GET /orders/{id}")

    assert (request.count, request.statuses) == (2, {"200": 2})
    assert (request.statements, request.statements_max) == (4, 2)
    assert request.response_model == "OrderOut"
    assert request.site == line_of('@orders.get("/{id}")')
    assert the(recording.requests, route="GET (unmatched)").statuses == {"404": 1}


def test_every_route_on_offer_is_named_and_the_frameworks_own_are_not(recording):
    assert "GET /orders/{id}/note" in recording.routes
    assert "WEBSOCKET /orders-socket" in recording.routes
    assert not [route for route in recording.routes if "docs" in route or "openapi" in route]


def test_a_response_that_starts_before_its_transaction_ends_is_seen(recording):
    late = the(recording.requests, route="POST /orders")
    early = the(recording.requests, route="POST /orders-early")

    assert (late.answered_before_commit, late.lost_after_answer) == (1, 0)
    assert (early.answered_before_commit, early.writing_transactions) == (0, 1)
    assert list(late.answered_before_commit_sites) == [line_of("await db.flush()")]


def test_a_transaction_that_only_read_holds_its_connection_and_is_no_lost_write(recording):
    request = the(recording.requests, route="GET /orders/{id}")

    assert (request.answered_before_commit, request.answered_while_reading) == (0, 2)


def test_statements_have_a_fingerprint_a_place_and_routes_but_no_values(recording):
    site = line_of("await db.scalar(select(Order.name)")
    statement = the(recording.statements, text="SELECT orders.name FROM orders WHERE orders.id = ?")
    use = the(statement.uses, site=site)

    assert (statement.kind, statement.tables) == ("SELECT", ("orders",))
    assert use.routes == {"GET /orders": use.count}
    assert (use.rows, use.rows_max) == (use.count, 1)


def test_a_query_per_row_is_a_repeat_with_different_parameters(recording):
    repeat = the(recording.repeats, site=line_of("await db.scalar(select(Order.name)"))

    assert repeat.scope == "request"
    assert repeat.route == "GET /orders"
    assert repeat.different >= 20
    assert repeat.same == 0


def test_pages_loaders_sockets_and_streams_are_no_repeats(recording):
    sites = [repeat.site for repeat in recording.repeats]

    assert line_of("limit(5).offset") not in sites
    assert line_of("options(selectinload") not in sites
    assert line_of("websocket.send_text") not in sites
    assert line_of("yield f") not in sites


def test_a_lazy_load_names_the_query_that_should_have_done_it(recording):
    load = the(recording.lazy_loads, attribute="Order.lines", phase="handler")

    assert load.site == line_of("len(order.lines)")
    assert load.query_site == line_of("await db.scalars(select(Order))).all()")
    assert (load.would_raise, load.uselist, load.route) == (0, True, "GET /orders-touched")
    assert load.count == load.max_in_scope == load.parents >= 20


def test_a_lazy_load_while_the_answer_is_written_would_raise(recording):
    load = the(recording.lazy_loads, attribute="Order.lines", phase="serialisation")

    assert (load.would_raise, load.count, load.parents) == (1, 1, 1)
    assert load.query_site == line_of("await db.get(Order, id)")
    assert the(recording.errors, error="MissingGreenlet").status == 500


def test_a_deferred_column_is_a_lazy_load_of_a_column_and_a_refresh_is_none(recording):
    load = the(recording.lazy_loads, kind="column")

    assert load.attribute == "Order.note"
    assert load.site == line_of("order.note)")


def test_what_raise_on_sql_refuses_is_seen(recording):
    hit = the(recording.raise_hits)

    assert (hit.attribute, hit.lazy, hit.phase) == ("Order.strict", "raise_on_sql", "serialisation")
    assert hit.route == "GET /orders/{id}/strict"
    assert hit.query_site is not None


def test_two_joined_collections_multiply_rows(recording):
    rows = the(recording.cartesian)

    assert rows.site == line_of("joinedload(Order.lines), joinedload")
    assert rows.rows == 20 * 12 * 12


def test_two_tasks_in_one_session_are_an_overlap_with_both_places(recording):
    overlap = recording.overlaps[0]

    assert overlap.site == overlap.other_site == line_of("await asyncio.gather(db.execute")
    assert overlap.session_site == line_of("async with Session() as session:")
    assert overlap.route == "GET /orders-shared"


def test_sessions_of_their_own_in_several_tasks_are_no_overlap(recording):
    assert not [overlap for overlap in recording.overlaps if overlap.route == "GET /orders-fan"]


def test_rows_are_counted_per_statement_and_per_task(recording):
    added = the(recording.inserts, site=line_of("await session.flush()"))
    executed = the(recording.inserts, site=line_of("insert(Tag)"))

    assert (added.table, added.statements, added.rows_max, added.single_row_max) == ("tags", 5, 1, 5)
    assert (executed.statements, executed.rows_max, executed.single_row_max) == (1, 7, 0)


def test_rows_added_together_go_in_together(recording):
    seeded = the(recording.inserts, table="orders", single_row_max=0)

    assert (seeded.statements, seeded.rows, seeded.rows_max) == (1, 20, 20)


def test_copy_is_seen_past_sqlalchemy(recording):
    copy = the(recording.copies)

    assert (copy.table, copy.calls, copy.rows, copy.site) == ("tags", 1, 50, line_of("copy_records_to_table"))
    assert copy.chunks[0].rows == 50


def test_the_pool_tells_how_long_a_checkout_waited(recording):
    pool = the(recording.pools, engine=line_of("engine = create_async_engine"))

    assert (pool.capacity, pool.high_water) == (5, 5)
    assert 0 < pool.wait_p50_ms <= pool.wait_p99_ms <= pool.wait_max_ms
    assert sum(pool.wait_histogram.values()) == pool.checkouts
    assert pool.pings > 0


def test_an_error_has_a_class_a_code_and_the_answer_it_became(recording):
    failure = the(recording.errors, route="POST /orders")

    assert (failure.error, failure.sqlstate, failure.status, failure.count) == ("IntegrityError", "23505", 500, 1)


def test_a_swallowed_error_whose_commit_was_asked_for_is_seen(recording):
    failure = the(recording.errors, route="POST /orders-swallowed")

    assert (failure.sqlstate, failure.status, failure.swallowed) == ("23505", 200, 1)


def test_a_sync_driver_on_the_event_loop_is_seen(recording):
    engine = the(recording.engines, dialect="sqlite")

    assert not engine.is_async
    assert engine.in_event_loop == {line_of("connection.execute(text"): 1}


def test_models_are_as_their_mappers_have_them(recording):
    order = the(recording.models, name="Order", path="orders.py")  # other tests' classes are alive too
    line = the(recording.models, name="Line", path="orders.py")
    lazy = {relationship.attribute: relationship.lazy for relationship in order.relationships}

    assert order.path == "orders.py"
    assert lazy == {"Order.lines": "select", "Order.tags": "select", "Order.strict": "raise_on_sql"}
    assert {column.name for column in line.columns if column.indexed} == {"id", "order_id"}
    assert the(line.columns, name="order_id").foreign_key == "orders.id"
    assert all(column.annotated for column in order.columns)


def test_the_answers_are_what_they_would_have_been(service):
    answers = service[1]

    assert answers["GET /orders/1"] == [200]
    assert answers["POST /orders?name=late"] == [200, 500]
    assert answers["GET /orders/2/strict"] == [500]
    assert answers["GET /orders-shared"] == [200]
