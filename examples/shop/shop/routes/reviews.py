"""What customers think of a product."""

from collections.abc import Sequence

from fastapi import APIRouter, status
from sqlalchemy import select
from verdigris import load
from verdigris.fastapi import Route

from shop.database import SessionDep
from shop.models import Review
from shop.routes.paging import PageDep
from shop.schemas import ReviewIn, ReviewOut

router = APIRouter(prefix="/products/{product_id}/reviews", tags=["reviews"], route_class=Route)


@router.get("", response_model=list[ReviewOut])
async def read(product_id: int, page: PageDep, session: SessionDep) -> Sequence[Review]:
    """The product's reviews, newest first."""
    found = select(Review).where(Review.product_id == product_id).options(load(Review, ReviewOut))
    if page.after is not None:
        found = found.where(Review.id < page.after)
    rows = (await session.scalars(found.order_by(Review.id.desc()).limit(page.limit))).all()
    page.follow([review.id for review in rows])
    return rows


@router.post("", status_code=status.HTTP_201_CREATED, response_model=ReviewOut)
async def write(product_id: int, new: ReviewIn, session: SessionDep) -> Review:
    """Review a product: a second review by the same customer is a 409, an unknown customer or product too."""
    review = Review(product_id=product_id, **new.model_dump())
    session.add(review)
    await session.flush()
    return (await session.scalars(select(Review).where(Review.id == review.id).options(load(Review, ReviewOut)))).one()
