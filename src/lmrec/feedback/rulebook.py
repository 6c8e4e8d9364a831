"""Rules as they are kept: what a rule means is the business of lmrec.retrieval.rules."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from lmrec.feedback.audit import add_audit
from lmrec.feedback.checks import check_text, from_json, to_json
from lmrec.feedback.tables import RULES, insert_or_replace


@dataclass(frozen=True, slots=True)
class RuleRow:
    rule_id: str
    kind: str
    spec: dict[str, Any]
    created_ts: float


def put_rule(connection: Connection, rule: RuleRow, by: str, now: float) -> None:
    """A new rule, or a new form of the rule with this id."""
    check_text("rule_id", rule.rule_id)
    check_text("kind", rule.kind)
    values = {
        "rule_id": rule.rule_id,
        "version": rules_version(connection) + 1,
        "kind": rule.kind,
        "spec": to_json(f"rule '{rule.rule_id}'", rule.spec),
        "created_ts": rule.created_ts,
    }
    connection.execute(insert_or_replace(connection.dialect.name, RULES), values)
    add_audit(connection, by, "put_rule", rule.rule_id, {"kind": rule.kind, "spec": rule.spec}, now)


def delete_rule(connection: Connection, rule_id: str, by: str, now: float) -> bool:
    """Whether there was such a rule. Its row stays, empty, so that the version goes on."""
    alive = (RULES.c.rule_id == rule_id) & RULES.c.spec.is_not(None)
    next_version = rules_version(connection) + 1
    if connection.execute(update(RULES).where(alive).values(spec=None, version=next_version)).rowcount == 0:
        return False
    add_audit(connection, by, "delete_rule", rule_id, {}, now)
    return True


def rules(connection: Connection) -> list[RuleRow]:
    """The rules in force, oldest first."""
    found = select(RULES).where(RULES.c.spec.is_not(None)).order_by(RULES.c.created_ts, RULES.c.version)
    return [RuleRow(row.rule_id, row.kind, from_json(row.spec), row.created_ts) for row in connection.execute(found)]


def rules_version(connection: Connection) -> int:
    """Grows with every change of a rule."""
    return int(connection.execute(select(func.coalesce(func.max(RULES.c.version), 0))).scalar_one())
