"""The latest state of every item that was put or deleted since the run, in the order of the changes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from lmrec.feedback.checks import JsonScalar, check_text, from_json, to_json
from lmrec.feedback.tables import AUDIT, ITEMS, RULES, insert_or_replace
from lmrec.fields import ItemId


@dataclass(frozen=True, slots=True)
class ItemPut:
    """An item as it shall be. `text_vec`: float32 little endian, made by the checkpoint named by `fingerprint`."""

    item_id: ItemId
    fields: dict[str, JsonScalar]
    text_vec: bytes | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """The latest state of an item. `fields` is None where it was deleted. No two changes have one version."""

    version: int
    item_id: ItemId
    fields: dict[str, JsonScalar] | None
    text_vec: bytes | None
    fingerprint: str
    updated_ts: float


_MARK = select(
    *(
        select(func.coalesce(func.max(column), 0)).scalar_subquery()
        for column in (ITEMS.c.version, RULES.c.version, AUDIT.c.audit_id)
    )
)
_CHANGES = select(ITEMS).where(ITEMS.c.version > bindparam("after_version")).order_by(ITEMS.c.version)


def item_rows(items: Sequence[ItemPut]) -> list[dict[str, Any]]:
    """Checked rows, one for each item; of an item that is named twice the later one."""
    rows: dict[ItemId, dict[str, Any]] = {}
    for item in items:
        check_text("item_id", item.item_id)
        fields = to_json(f"the fields of item '{item.item_id}'", item.fields)
        row = {"item_id": item.item_id, "fields": fields, "text_vec": item.text_vec, "fingerprint": item.fingerprint}
        rows.pop(item.item_id, None)
        rows[item.item_id] = row
    return list(rows.values())


def tombstone_rows(item_ids: Collection[ItemId]) -> list[dict[str, Any]]:
    """Rows that say "deleted", also for items that only the run knows."""
    for item_id in item_ids:
        check_text("item_id", item_id)
    return [
        {"item_id": item_id, "fields": None, "text_vec": None, "fingerprint": ""} for item_id in dict.fromkeys(item_ids)
    ]


def write_items(connection: Connection, rows: Sequence[dict[str, Any]], now: float) -> int:
    """Give each row the next version, and return the last one."""
    version = items_version(connection)
    if rows:
        numbered = [{**row, "version": version + place, "updated_ts": now} for place, row in enumerate(rows, start=1)]
        connection.execute(insert_or_replace(connection.dialect.name, ITEMS), numbered)
    return version + len(rows)


def catalog_mark(connection: Connection) -> tuple[int, int, int]:
    """The versions of items and of rules, and the number of the last decision, in one question."""
    items, rules, decision = connection.execute(_MARK).one()
    return int(items), int(rules), int(decision)


def items_version(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(ITEMS.c.version), 0))).scalar_one())


def item_changes(connection: Connection, after_version: int) -> list[ItemChange]:
    return [
        ItemChange(
            version=row.version,
            item_id=row.item_id,
            fields=None if row.fields is None else from_json(row.fields),
            text_vec=row.text_vec,
            fingerprint=row.fingerprint,
            updated_ts=row.updated_ts,
        )
        for row in connection.execute(_CHANGES, {"after_version": after_version})
    ]
