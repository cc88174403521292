"""A report is queued, computed in the background, and read; the dashboard asks three things at once."""

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from shop import jobs
from shop.models import ReportState, SalesReport


async def test_a_report_counts_what_was_paid(client: httpx.AsyncClient, stocked):
    for pieces in (1, 2):
        order = (await client.post("/orders", json=stocked.order(pieces))).json()
        payment = {"method": "card", "amount": order["total"], "reference": f"r-{pieces}"}
        await client.post(f"/orders/{order['id']}/payments", json=payment)
    await client.post("/orders", json=stocked.order(1))

    asked = await client.post("/reports", json={"days": 7})

    assert asked.status_code == 202
    assert asked.json()["state"] == "queued"
    read = (await client.get(f"/reports/{asked.json()['id']}")).json()
    assert (read["state"], read["orders"], read["revenue"]) == ("done", 2, "60.00")


async def test_a_report_that_fails_says_so(database, monkeypatch):
    async def fail(id: int) -> None:
        raise SQLAlchemyError("the disk is full")

    monkeypatch.setattr(jobs, "compute", fail)
    async with database.session.begin() as session:
        report = SalesReport(days=7)
        session.add(report)

    with pytest.raises(SQLAlchemyError, match="full"):
        await jobs.sales_report(report.id)

    async with database.session() as session:
        assert await session.scalar(select(SalesReport.state)) is ReportState.FAILED


async def test_an_unknown_report_is_not_found(client: httpx.AsyncClient):
    assert (await client.get("/reports/0")).status_code == 404


async def test_the_dashboard_sums_up_the_shop(client: httpx.AsyncClient, stocked):
    await client.post("/orders", json=stocked.order(8, 1))

    answer = (await client.get("/dashboard")).json()

    assert answer["statuses"] == [{"status": "pending", "orders": 1, "revenue": "210.00"}]
    assert [(best["name"], best["pieces"]) for best in answer["best_sellers"]] == [("copper lamp", 8), ("oak lamp", 1)]
    assert [order["total"] for order in answer["waiting"]] == ["210.00"]
