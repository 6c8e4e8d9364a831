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


def queue_items(
    connection: Connection,
    reasons: Mapping[ItemId, str],
    approvals: Mapping[ItemId, float],
    by: str,
    now: float,
) -> None:
    """Flag items for reasons that a program found, where that is news: who decided or flagged since the program looked is
    not overruled. approvals: those it knew of and found outdated, item -> `decided_ts`."""
    for item_id, reason in reasons.items():
        found = connection.execute(select(REVIEWS).where(REVIEWS.c.item_id == item_id)).one_or_none()
        if found is None or (found.status == "approved" and found.decided_ts == approvals.get(item_id)):
            flag_item(connection, item_id, reason, by, now)


def release_items(connection: Connection, rows: Collection[ReviewRow], why: str, by: str, now: float) -> None:
    """Take items out of the queue as if they had never been flagged; what was decided stays in the audit. Those that were
    flagged again or decided on since they were read stay as they are now."""
    for row in rows:
        as_read = (REVIEWS.c.item_id == row.item_id) & (REVIEWS.c.status == row.status)
        if connection.execute(delete(REVIEWS).where(as_read & (REVIEWS.c.flagged_ts == row.flagged_ts))).rowcount:
            add_audit(connection, by, "release_item", row.item_id, {"why": why}, now)


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
