"""The category tree, and products: searched, read, added, changed, tagged."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response, status
from sqlalchemy import Select, select
from verdigris import load
from verdigris.fastapi import Route

from shop.database import SessionDep, db
from shop.models import Category, Product, Tag
from shop.routes.paging import PageDep
from shop.schemas import CategoryNode, ProductChange, ProductIn, ProductOut, Search, TagsIn

router = APIRouter(tags=["catalogue"], route_class=Route)


@router.get("/categories")
async def categories(session: SessionDep) -> list[CategoryNode]:
    """The whole tree, from one query."""
    rows = (await session.scalars(select(Category).order_by(Category.slug))).all()
    nodes = {row.id: CategoryNode(id=row.id, slug=row.slug, name=row.name) for row in rows}
    roots: list[CategoryNode] = []
    for row in rows:
        siblings = roots if row.parent_id is None else nodes[row.parent_id].children
        siblings.append(nodes[row.id])
    return roots


@router.get("/products", response_model=list[ProductOut])
async def search(wanted: Annotated[Search, Query()], page: PageDep, session: SessionDep) -> Sequence[Product]:
    """The products that match everything that is asked for."""
    found = select(Product).options(load(Product, ProductOut))
    if wanted.words is not None:
        found = found.where(Product.search.match(wanted.words, postgresql_regconfig="english"))
    if wanted.category is not None:
        found = found.where(Product.category_id.in_(branch(wanted.category)))
    if wanted.tag is not None:
        found = found.where(Product.tags.any(Tag.name == wanted.tag))
    if wanted.cheapest is not None:
        found = found.where(Product.price >= wanted.cheapest)
    if wanted.dearest is not None:
        found = found.where(Product.price <= wanted.dearest)
    if page.after is not None:
        found = found.where(Product.id > page.after)
    rows = (await session.scalars(found.order_by(Product.id).limit(page.limit))).all()
    page.follow([product.id for product in rows])
    return rows


def branch(slug: str) -> Select[Any]:
    """The ids of a category and of everything below it."""
    top = select(Category.id).where(Category.slug == slug).cte("branch", recursive=True)
    below = select(Category.id).join(top, Category.parent_id == top.c.id)
    return select(top.union_all(below).c.id)


@router.get("/products/{id}", response_model=ProductOut)
async def read(id: int) -> Response:
    """One product; a client that has it already gets 304."""
    return await db.json(select(Product).where(Product.id == id), ProductOut, etag=True)


@router.post("/products", status_code=status.HTTP_201_CREATED, response_model=ProductOut)
async def create(new: ProductIn, session: SessionDep) -> Product:
    """Add a product without tags; a SKU that is taken is a 409."""
    category = await session.scalar(select(Category).where(Category.slug == new.category))
    if category is None:
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, f"no category {new.category!r}")
    product = Product(**new.model_dump(exclude={"category"}), category=category, tags=[])
    session.add(product)
    await session.flush()
    return product


@router.patch("/products/{id}", response_model=ProductOut)
async def change(id: int, wanted: ProductChange, session: SessionDep) -> Product:
    product = await session.scalar(select(Product).where(Product.id == id).options(load(Product, ProductOut)))
    if product is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no product {id}")
    for field, value in wanted.model_dump(exclude_none=True).items():
        setattr(product, field, value)
    return product


@router.put("/products/{id}/tags", response_model=ProductOut)
async def tag(id: int, wanted: TagsIn, session: SessionDep) -> Product:
    """Replace a product's tags; tags that are new to the shop are added."""
    product = await session.scalar(select(Product).where(Product.id == id).options(load(Product, ProductOut)))
    if product is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no product {id}")
    known = (await session.scalars(select(Tag).where(Tag.name.in_(wanted.tags)))).all()
    missing = wanted.tags - {found.name for found in known}
    product.tags = sorted([*known, *(Tag(name=name) for name in missing)], key=lambda found: found.name)
    await session.flush()
    return product
