"""Sales reports: asked for, computed in the background, fetched."""

from fastapi import APIRouter, BackgroundTasks, HTTPException, status
from verdigris.fastapi import Route

from shop.database import SessionDep
from shop.jobs import sales_report
from shop.models import SalesReport
from shop.schemas import ReportIn, ReportOut

router = APIRouter(prefix="/reports", tags=["reports"], route_class=Route)


@router.post("", status_code=status.HTTP_202_ACCEPTED, response_model=ReportOut)
async def ask(wanted: ReportIn, session: SessionDep, background: BackgroundTasks) -> SalesReport:
    """Queue a report; the job gets its id and opens its own session after this request's is committed."""
    report = SalesReport(days=wanted.days)
    session.add(report)
    await session.flush()
    background.add_task(sales_report, report.id)
    return report


@router.get("/{id}", response_model=ReportOut)
async def read(id: int, session: SessionDep) -> SalesReport:
    report = await session.get(SalesReport, id)
    if report is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no report {id}")
    return report
