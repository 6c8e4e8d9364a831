"""The catalog, changed while it is served."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Query, Response
from starlette.concurrency import run_in_threadpool

from lmrec.errors import InputError
from lmrec.fields import ITEM_ID
from lmrec.retrieval.answers import LiveItem
from lmrec.service.errors import not_found
from lmrec.service.routes.reviews import review_body
from lmrec.service.routes.shared import Actor, IdPath, State, answer, errors, needs
from lmrec.service.schemas.answers import Item, ItemGone, ItemKept, ItemPage, ItemsKept, Review
from lmrec.service.schemas.questions import FlagQuestion, ItemBatch
from lmrec.service.schemas.words import Fields, Id
from lmrec.service.state import ServiceState

router = APIRouter(prefix="/v1", tags=["items"])
_EXAMPLES = {"a film": {"value": {"title": "A new film", "description": "A heist in Vegas goes wrong."}}}


@router.get("/items", response_model=ItemPage, responses=errors(), dependencies=[needs("read")])
async def browse_items(
    state: State,
    query: Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$", description="Words in the title.")] = "",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    item_id: Annotated[
        list[Id] | None, Query(max_length=200, description="These items instead, where there are such; repeatable.")
    ] = None,
) -> Response:
    """The catalog as it is now, page by page; or the items that are named, in one request."""

    def find() -> dict[str, Any]:
        state.catch_up()
        live = state.serving.current.live
        if item_id is None:
            items, total = live.browse(query, offset, limit)
        else:
            items = [item for one in dict.fromkeys(item_id) if (item := live.get_item(one)) is not None]
            total = len(items)
        return {"items": [_body(item) for item in items], "total": total, "offset": offset}

    return answer(await run_in_threadpool(find))


@router.post("/items", response_model=ItemsKept, responses=errors(400), dependencies=[needs("admin")])
async def put_items(batch: ItemBatch, state: State, actor: Actor) -> Response:
    """Add or replace up to 500 items: all of them, or none where one is wrong."""
    version = await state.write(lambda: state.serving.put_items(batch.items, actor))
    return answer({"accepted": len(batch.items), "version": version})


@router.post(
    "/items/{item_id:path}/flag", response_model=Review, responses=errors(400, 404), dependencies=[needs("admin")]
)
async def flag_item(item_id: IdPath, question: FlagQuestion, state: State, actor: Actor) -> Response:
    """Hold an item back until somebody decides, see `/v1/reviews`."""

    def flag() -> dict[str, Any]:
        _existing(state, item_id)
        row = state.store.flag_item(item_id, question.reason, actor)
        state.serving.sync_reviews()
        return review_body(row, state)

    return answer(await run_in_threadpool(flag))


@router.api_route("/items/{item_id:path}/flag", methods=["GET", "PUT", "DELETE"], include_in_schema=False)
async def refuse_flag(item_id: str) -> Response:
    """Without this the paths of items, whose ids may hold slashes, would take these."""
    raise HTTPException(405, headers={"Allow": "POST"})


@router.get("/items/{item_id:path}", response_model=Item, responses=errors(404), dependencies=[needs("read")])
async def get_item(item_id: IdPath, state: State) -> Response:
    return answer(_body(await run_in_threadpool(_existing, state, item_id)))


@router.put("/items/{item_id:path}", response_model=ItemKept, responses=errors(400), dependencies=[needs("admin")])
async def put_item(
    item_id: IdPath, fields: Annotated[Fields, Body(openapi_examples=_EXAMPLES)], state: State, actor: Actor
) -> Response:
    """Add or replace an item. Once this answers, it is safe on disk and can be recommended.

    Fields are the catalog's columns; those left out become null.
    """
    if fields.get(ITEM_ID, item_id) != item_id:
        raise InputError(
            f"the body's item_id {fields[ITEM_ID]!r:.100} is not the path's '{item_id}'. Leave it out of the body"
        )
    version = await state.write(lambda: state.serving.put_items([{**fields, ITEM_ID: item_id}], actor))
    return answer({"item_id": item_id, "version": version})


@router.delete("/items/{item_id:path}", response_model=ItemGone, responses=errors(), dependencies=[needs("admin")])
async def delete_item(item_id: IdPath, state: State, actor: Actor) -> Response:
    """Never show an item again, also after a restart. `deleted` is false where there was none."""

    def delete() -> dict[str, Any]:
        there = state.serving.has_item(item_id)
        state.serving.delete_items([item_id], actor)
        return {"item_id": item_id, "deleted": there}

    return answer(await state.write(delete))


def _existing(state: ServiceState, item_id: str) -> LiveItem:
    state.catch_up()
    item = state.serving.current.live.get_item(item_id)
    if item is None:
        raise not_found(f"there is no item '{item_id}'. Look for it with GET /v1/items?query=WORDS, or PUT it")
    return item


def _body(item: LiveItem) -> dict[str, Any]:
    return {"item_id": item.item_id, "title": item.title, "fields": item.fields}
