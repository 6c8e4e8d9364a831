"""Rules above the model, in force as soon as they are answered."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from starlette.concurrency import run_in_threadpool

from lmrec.feedback.rulebook import RuleRow
from lmrec.retrieval.rules import Rule, parse_rule
from lmrec.service.errors import ServiceError, not_found
from lmrec.service.routes.shared import Actor, IdPath, State, answer, errors, needs
from lmrec.service.schemas.answers import RuleAnswer, RuleGone, RuleList
from lmrec.service.serving import rule_spec
from lmrec.service.state import ServiceState

router = APIRouter(prefix="/v1", tags=["rules"], dependencies=[needs("admin")])
_EXAMPLES = {
    "hide": {"value": {"kind": "must_not_show", "item_ids": ["50"]}},
    "lift": {"value": {"kind": "boost", "filter": {"title": {"contains": "night"}}, "factor": 2.0}},
    "pin": {"value": {"kind": "pin", "item_id": "50", "place": 1}},
}


@router.get("/rules", response_model=RuleList, responses=errors())
async def list_rules(state: State) -> Response:
    """Those put by the API and those of the rules file."""
    return answer({"rules": await run_in_threadpool(_all, state)})


@router.get("/rules/{rule_id:path}", response_model=RuleAnswer, responses=errors(404))
async def get_rule(rule_id: IdPath, state: State) -> Response:
    for body in await run_in_threadpool(_all, state):
        if body["rule_id"] == rule_id:
            return answer(body)
    raise not_found(f"there is no rule '{rule_id}'. GET /v1/rules lists all")


@router.put("/rules/{rule_id:path}", response_model=RuleAnswer, responses=errors(400, 409))
async def put_rule(
    rule_id: IdPath, rule: Annotated[Rule, Body(openapi_examples=_EXAMPLES)], state: State, actor: Actor
) -> Response:
    """Make or replace a rule. Refused where it does not fit the catalog."""

    def put() -> dict[str, Any]:
        _not_of_file(state, rule_id)
        spec = rule.model_dump(mode="json", exclude_defaults=True)
        kept = parse_rule({**spec, "kind": rule.kind})  # as it will be read from the store
        state.serving.check_rule(rule_id, kept)
        row = RuleRow(rule_id, rule.kind, spec, time.time())
        state.store.put_rule(row, by=actor)
        state.serving.sync_rules()
        return _body(row)

    return answer(await run_in_threadpool(put))


@router.delete("/rules/{rule_id:path}", response_model=RuleGone, responses=errors(404, 409))
async def delete_rule(rule_id: IdPath, state: State, actor: Actor) -> Response:
    """Take a rule that was put by the API out of force; one of the rules file is taken out there."""

    def delete() -> dict[str, Any]:
        if not state.store.delete_rule(rule_id, by=actor):
            _not_of_file(state, rule_id)
            raise not_found(f"there is no rule '{rule_id}'. GET /v1/rules lists all")
        state.serving.sync_rules()
        return {"rule_id": rule_id, "deleted": True}

    return answer(await run_in_threadpool(delete))


def _all(state: ServiceState) -> list[dict[str, Any]]:
    of_file = [
        {
            "rule_id": rule_id,
            "rule": {**rule.model_dump(mode="json", exclude_defaults=True), "kind": rule.kind},
            "source": "file",
            "created": None,
        }
        for rule_id, rule in state.serving.file_rules.items()
    ]
    return [*of_file, *(_body(row) for row in state.store.rules())]


def _body(row: RuleRow) -> dict[str, Any]:
    return {"rule_id": row.rule_id, "rule": rule_spec(row), "source": "api", "created": row.created_ts}


def _not_of_file(state: ServiceState, rule_id: str) -> None:
    if rule_id in state.serving.file_rules:
        raise ServiceError(
            409,
            "rules_file",
            f"the rule '{rule_id}' comes from the rules file. Change it there; it is read again at once",
        )
