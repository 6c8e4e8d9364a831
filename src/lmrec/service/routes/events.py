"""What users do, told by the shop."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Response
from starlette.concurrency import run_in_threadpool

from lmrec.data.weighing import plain_kind
from lmrec.errors import InputError, nearest
from lmrec.feedback.events import EVENT_KINDS, IN_VAIN, LEFT_OUT, UNKNOWN_ITEM, Event
from lmrec.feedback.judging import PLAIN_JUDGING, Judging
from lmrec.feedback.store import WRITE_WAIT_S
from lmrec.service.errors import busy
from lmrec.service.routes.shared import State, answer, errors, needs
from lmrec.service.schemas.answers import EventsKept
from lmrec.service.schemas.questions import EventBatch, EventIn, Events
from lmrec.service.schemas.words import MAX_SECONDS

DAY_S = 86_400.0
OLD_S = 30 * DAY_S
FUTURE_S = DAY_S

router = APIRouter(prefix="/v1", tags=["events"], dependencies=[needs("events")])


@router.post("/events", response_model=EventsKept, responses=errors(400))
async def add_events(body: Annotated[Events, Body()], state: State) -> Response:
    """Up to 1,000 events, or a single one as a bare object. The answer comes after they are safe on disk.

    An event whose id is known counts as a duplicate and changes nothing, so a retry is harmless. An event counts in
    the user's next recommendation, and weighs what it would in the table that the run was fitted on.
    """
    now = time.time()
    sent = body.events if isinstance(body, EventBatch) else [body]
    log, judging = state.users.log, state.users.judging
    lacking = await state.lacks_any({entry.item_id for entry in sent})
    events = [to_event(entry, now, lambda item_id: item_id not in lacking, log.kinds, judging) for entry in sent]
    if any(event.kind in judging.returns for event in events):
        in_vain = await run_in_threadpool(state.users.returned_in_vain, events, now)
        events = [
            replace(event, flags=(*event.flags, IN_VAIN)) if event.event_id in in_vain else event for event in events
        ]
    written = asyncio.wrap_future(state.store.queue_events(events))
    try:
        async with asyncio.timeout(WRITE_WAIT_S):
            added = await written
    except TimeoutError:
        raise busy("the store did not finish in time; send the same again, nothing is counted twice") from None
    flags = Counter(flag for event in events for flag in event.flags)
    state.metrics.events.labels("accepted").inc(added.accepted)
    state.metrics.events.labels("duplicate").inc(added.duplicates)
    for flag, n in flags.items():
        state.metrics.events.labels(flag).inc(n)
    return answer(
        {
            "accepted": added.accepted,
            "duplicates": added.duplicates,
            "flagged": dict(flags),
            "event_ids": [event.event_id for event in events],
        }
    )


def to_event(
    sent: EventIn,
    now: float,
    known: Callable[[str], bool],
    kinds: Collection[str] = EVENT_KINDS,
    judging: Judging = PLAIN_JUDGING,
) -> Event:
    """known: whether there is such an item. kinds: what an event may be. Raises InputError for another kind, and for a time
    that cannot be read."""
    time_ts = now if sent.time is None else parse_time(sent.time)
    kind = plain_kind(sent.kind)
    if kind not in kinds:
        raise InputError(
            f"the kind '{sent.kind}' is unknown to the run that is served. {nearest(kind, kinds)} A run knows the kinds of its "
            "log and those that its recipe names: fit it with data.kind_weights or, for what takes a purchase back, "
            "data.return_kinds"
        )
    left_out = kind not in judging.returns and judging.judge(kind, sent.rating) is None
    flags = [
        *([UNKNOWN_ITEM] if not known(sent.item_id) else []),
        *(["old_clock"] if time_ts < now - OLD_S else []),
        *(["future_clock"] if time_ts > now + FUTURE_S else []),
        *([LEFT_OUT] if left_out else []),
    ]
    return Event(
        event_id=sent.event_id or f"lmrec-{uuid.uuid4().hex}",
        user_id=sent.user_id,
        item_id=sent.item_id,
        kind=kind,
        time_ts=time_ts,
        rating=sent.rating,
        weight=sent.weight,
        request_id=sent.request_id,
        flags=tuple(flags),
    )


def parse_time(value: str | float) -> float:
    """Unix seconds, from those or from ISO 8601; no zone means UTC.

    >>> parse_time("2025-01-01T01:00:00+01:00"), parse_time(1735689600)
    (1735689600.0, 1735689600.0)
    """
    if isinstance(value, int | float):
        if abs(value) > MAX_SECONDS:
            raise InputError(f"time {value:g} is too large for unix seconds. Divide milliseconds by 1000")
        return float(value)
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InputError(
            f"time '{value}' is no ISO 8601 moment. Write it like 2025-01-31T09:30:00Z, or as unix seconds"
        ) from None
