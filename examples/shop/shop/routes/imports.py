"""Bulk import of products from a CSV or NDJSON file, all or nothing."""

import codecs
import csv
import json
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, HTTPException, UploadFile, status
from pydantic import ValidationError
from sqlalchemy import select
from verdigris import bulk
from verdigris.fastapi import Route

from shop.database import SessionDep
from shop.models import Category, Product
from shop.schemas import Imported, ProductIn

router = APIRouter(prefix="/imports", tags=["imports"], route_class=Route)


@router.post("/products", status_code=status.HTTP_201_CREATED)
async def products(file: UploadFile, session: SessionDep) -> Imported:
    """Add the products of the file: 422 names the line that is wrong, 409 means that a SKU is taken."""
    categories = {slug: key for key, slug in await session.execute(select(Category.id, Category.slug))}
    done = await bulk.insert(session, Product, rows(file, categories))
    return Imported(rows=done.rows, seconds=round(done.seconds, 3))


def rows(file: UploadFile, categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The file's products as rows, one at a time: a file of any length takes the memory of one chunk."""
    number = 0
    try:
        for number, record in enumerate(records(file), start=1):
            product = ProductIn.model_validate(record)
            category_id = categories.get(product.category)
            if category_id is None:
                raise refusal(f"product {number}: no category {product.category!r}")
            yield {**product.model_dump(exclude={"category"}), "category_id": category_id}
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise refusal(f"product {number}: {where}: {problem['msg']}") from error
    except (csv.Error, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise refusal(f"unreadable after product {number}: {error}") from error


def records(file: UploadFile) -> Iterator[Any]:
    text = codecs.getreader("utf-8-sig")(file.file)
    match file.content_type:
        case "text/csv":
            return csv.DictReader(text)
        case "application/x-ndjson":
            return map(json.loads, text)
        case other:
            sent = f"{other}: send text/csv or application/x-ndjson"
            raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, sent)


def refusal(reason: str) -> HTTPException:
    return HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, reason)
