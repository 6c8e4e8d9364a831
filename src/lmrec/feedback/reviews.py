"""The review queue: an item that was flagged is not shown until somebody approves it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from sqlalchemy import Connection, delete, select, update

from lmrec.errors import UnknownIdError
from lmrec.feedback.audit import add_audit
from lmrec.feedback.checks import check_text
from lmrec.feedback.tables import REVIEWS, insert_or_replace
from lmrec.fields import ItemId

ReviewStatus: TypeAlias = Literal["waiting", "approved", "rejected"]


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """The last time an item was flagged, and what was decided since: `decided_*` are None while it waits."""

    item_id: ItemId
    status: ReviewStatus
    reason: str
    flagged_by: str
    flagged_ts: float
    decided_by: str | None
    decided_ts: float | None
    note: str


def flag_item(connection: Connection, item_id: ItemId, reason: str, by: str, now: float) -> ReviewRow:
    """The item waits from now on, also if it was decided before: the earlier decision stays in the audit."""
    check_text("item_id", item_id)
    check_text("reason", reason)
    values = {
        "item_id": item_id,
        "status": "waiting",
        "reason": reason,
        "flagged_by": by,
        "flagged_ts": now,
        "decided_by": None,
        "decided_ts": None,
        "note": "",
    }
    connection.execute(insert_or_replace(connection.dialect.name, REVIEWS), values)
    add_audit(connection, by, "flag_item", item_id, {"reason": reason}, now)
    return ReviewRow(**cast(Any, values))


def flag_items(connection: Connection, flags: Mapping[ItemId, str], by: str, now: float) -> None:
    """`flag_item` of many: item -> reason."""
    for item_id, reason in flags.items():
        flag_item(connection, item_id, reason, by, now)


def release_items(connection: Connection, item_ids: Collection[ItemId], why: str, by: str, now: float) -> None:
    """Take items out of the queue as if they had never been flagged; what was decided stays in the audit."""
    for item_id in item_ids:
        if connection.execute(delete(REVIEWS).where(REVIEWS.c.item_id == item_id)).rowcount:
            add_audit(connection, by, "release_item", item_id, {"why": why}, now)


def end_approvals(connection: Connection, item_ids: Collection[ItemId], why: str, by: str, now: float) -> None:
    """Of items whose words are others now, or that are gone: who approved them had read the words before."""
    for item_id in item_ids:
        approved = (REVIEWS.c.item_id == item_id) & (REVIEWS.c.status == "approved")
        if connection.execute(delete(REVIEWS).where(approved)).rowcount:
            add_audit(connection, by, "end_approval", item_id, {"why": why}, now)


def decide_item(connection: Connection, item_id: ItemId, approved: bool, by: str, note: str, now: float) -> ReviewRow:
    """UnknownIdError for an item that was never flagged. A decision may be changed by deciding again."""
    status: ReviewStatus = "approved" if approved else "rejected"
    if note:
        check_text("note", note)
    decided = update(REVIEWS).where(REVIEWS.c.item_id == item_id)
    values = {"status": status, "decided_by": by, "decided_ts": now, "note": note}
    if connection.execute(decided.values(values)).rowcount == 0:
        raise UnknownIdError(f"item '{item_id}' was never flagged, so there is nothing to decide. Flag it first")
    add_audit(connection, by, "approve_item" if approved else "reject_item", item_id, {"note": note}, now)
    return _row(connection.execute(select(REVIEWS).where(REVIEWS.c.item_id == item_id)).one())


def reviews(connection: Connection, status: ReviewStatus) -> list[ReviewRow]:
    """Items with this status, the one flagged first at the top."""
    found = select(REVIEWS).where(REVIEWS.c.status == status).order_by(REVIEWS.c.flagged_ts, REVIEWS.c.item_id)
    return [_row(row) for row in connection.execute(found)]


def waiting_items(connection: Connection) -> set[ItemId]:
    """Items that are not to be shown: flagged, and waiting or rejected."""
    return set(connection.execute(select(REVIEWS.c.item_id).where(REVIEWS.c.status != "approved")).scalars())


def _row(row: Any) -> ReviewRow:
    return ReviewRow(
        item_id=row.item_id,
        status=cast(ReviewStatus, row.status),
        reason=row.reason,
        flagged_by=row.flagged_by,
        flagged_ts=row.flagged_ts,
        decided_by=row.decided_by,
        decided_ts=row.decided_ts,
        note=row.note,
    )
