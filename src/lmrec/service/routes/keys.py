"""Keys and their scopes."""

from typing import Any

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from lmrec.service.errors import ServiceError, not_found
from lmrec.service.routes.shared import Actor, IdPath, State, answer, errors, needs
from lmrec.service.schemas.answers import KeyGone, KeyList, KeyMade
from lmrec.service.schemas.questions import NewKey

router = APIRouter(prefix="/v1", tags=["keys"], dependencies=[needs("admin")])


@router.get("/keys", response_model=KeyList, responses=errors())
async def list_keys(state: State) -> Response:
    """All keys, revoked ones too. Secrets are not kept, so none is shown."""

    def find() -> dict[str, Any]:
        return {"keys": [row.as_dict() for row in state.store.keys()]}  # noqa: SIM118 (no dictionary)

    return answer(await run_in_threadpool(find))


@router.post("/keys", response_model=KeyMade, responses=errors(400, 409))
async def make_key(question: NewKey, state: State, actor: Actor) -> Response:
    """Make a key. From the first one on, every request needs one; so the first must have the scope admin."""

    def make() -> dict[str, Any]:
        if "admin" not in question.scopes and not state.store.has_keys():
            raise ServiceError(
                409,
                "first_key",
                "the first key needs the scope 'admin': from then on every request needs a key, and without an admin "
                "key nobody could make another here. Make an admin key first",
            )
        secret = state.store.add_key(question.name, question.scopes, by=actor)
        state.keys.forget()
        row = state.store.check_key(secret)
        assert row is not None, "a key that was just made"
        return {"key_id": row.key_id, "name": row.name, "scopes": list(row.scopes), "secret": secret}

    return answer(await run_in_threadpool(make))


@router.delete("/keys/{key_id}", response_model=KeyGone, responses=errors(404))
async def revoke_key(key_id: IdPath, state: State, actor: Actor) -> Response:
    """Refuse a key from now on."""

    def revoke() -> dict[str, Any]:
        if not state.store.revoke_key(key_id, by=actor):
            raise not_found(f"there is no key '{key_id}' in force. GET /v1/keys lists all")
        state.keys.forget()
        return {"key_id": key_id, "revoked": True}

    return answer(await run_in_threadpool(revoke))
