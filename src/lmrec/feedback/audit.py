"""Who decided what, and when. Written in the transaction of the decision itself, never changed."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from lmrec.feedback.checks import check_text, from_json, to_json
from lmrec.feedback.tables import AUDIT


@dataclass(frozen=True, slots=True)
class AuditRow:
    audit_id: int
    time_ts: float
    actor: str
    action: str
    target: str
    detail: dict[str, Any]


_NEWEST = select(AUDIT).order_by(AUDIT.c.audit_id.desc()).limit(bindparam("n_rows"))


def add_audit(
    connection: Connection, actor: str, action: str, target: str, detail: dict[str, Any], time_ts: float
) -> None:
    check_text("actor", actor)
    check_text("action", action)
    check_text("target", target)
    text = to_json("detail", detail)
    values = {"time_ts": time_ts, "actor": actor, "action": action, "target": target, "detail": text}
    connection.execute(insert(AUDIT), values)


def audit(connection: Connection, limit: int) -> list[AuditRow]:
    """The newest `limit` decisions, newest first."""
    return [
        AuditRow(row.audit_id, row.time_ts, row.actor, row.action, row.target, from_json(row.detail))
        for row in connection.execute(_NEWEST, {"n_rows": limit})
    ]
