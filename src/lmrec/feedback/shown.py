"""Lists that were shown, by request id: what joins a click to the list it came from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, select

from lmrec.feedback.checks import check_text, from_json, to_json
from lmrec.feedback.tables import SHOWN, insert_or_skip
from lmrec.fields import ItemId, UserId

# Names in a context that an experiment writes there, over what a shop sent under them.
EXPERIMENT: Final = "experiment"
ARM: Final = "arm"
MS: Final = "ms"  # how long the model took
SHADOW: Final = "shadow"  # {"generation", "item_ids", "ms"}: what another generation would have shown


@dataclass(frozen=True, slots=True)
class Shown:
    """One list, best item first. `context`: what else was known (experiment arm, segment); JSON, no personal text."""

    request_id: str
    user_id: UserId | None
    generation: str
    item_ids: tuple[ItemId, ...]
    time_ts: float
    context: dict[str, Any]

    @property
    def is_trial(self) -> bool:
        """Whether somebody tried the list out in the console: no user saw it, so it counts for no experiment."""
        return self.context.get("page") == "console"


_BY_ID = select(SHOWN).where(SHOWN.c.request_id == bindparam("request_id"))
_OF_USER = select(SHOWN).where(SHOWN.c.user_id == bindparam("user_id")).order_by(SHOWN.c.time_ts, SHOWN.c.request_id)
_BY_TIME = select(SHOWN).order_by(SHOWN.c.time_ts, SHOWN.c.request_id)
_AFTER = _BY_TIME.where(SHOWN.c.time_ts > bindparam("after_ts")).limit(bindparam("n_lists"))
_IDS_BETWEEN = select(SHOWN.c.request_id).where(
    SHOWN.c.time_ts > bindparam("after_ts"), SHOWN.c.time_ts <= bindparam("until_ts")
)
_SAME_TIME = _BY_TIME.where(SHOWN.c.time_ts == bindparam("at_ts"))


def shown_row(shown: Shown) -> dict[str, Any]:
    """The checked row of a list."""
    check_text("request_id", shown.request_id)
    check_text("generation", shown.generation)
    if shown.user_id is not None:
        check_text("user_id", shown.user_id)
    return {
        "request_id": shown.request_id,
        "user_id": shown.user_id,
        "generation": shown.generation,
        "item_ids": to_json("item_ids", list(shown.item_ids)),
        "time_ts": shown.time_ts,
        "context": to_json("context", shown.context),
    }


def add_shown(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """A request id that is known keeps its first list."""
    if rows:
        connection.execute(insert_or_skip(connection.dialect.name, SHOWN), list(rows))


def shown(connection: Connection, request_id: str) -> Shown | None:
    row = connection.execute(_BY_ID, {"request_id": request_id}).one_or_none()
    return None if row is None else _shown(row)


def shown_after(connection: Connection, after_ts: float, limit: int) -> list[Shown]:
    """Lists later than `after_ts`, in order of time; more than `limit` where the last ones have the same time, so
    that who goes on from the last time misses none."""
    rows = connection.execute(_AFTER, {"after_ts": after_ts, "n_lists": limit}).all()
    if rows and len(rows) == limit:
        last_ts = rows[-1].time_ts
        earlier = [row for row in rows if row.time_ts < last_ts]
        return _all([*earlier, *connection.execute(_SAME_TIME, {"at_ts": last_ts})])
    return _all(rows)


def shown_ids(connection: Connection, after_ts: float, until_ts: float) -> list[str]:
    """Of the lists later than `after_ts` and no later than `until_ts`."""
    return list(connection.execute(_IDS_BETWEEN, {"after_ts": after_ts, "until_ts": until_ts}).scalars())


def shown_to_user(connection: Connection, user_id: UserId) -> list[Shown]:
    return _all(connection.execute(_OF_USER, {"user_id": user_id}))


def _all(rows: Iterable[Row[*tuple[Any, ...]]]) -> list[Shown]:
    return [_shown(row) for row in rows]


def _shown(row: Row[*tuple[Any, ...]]) -> Shown:
    return Shown(
        request_id=row.request_id,
        user_id=row.user_id,
        generation=row.generation,
        item_ids=tuple(from_json(row.item_ids)),
        time_ts=row.time_ts,
        context=from_json(row.context),
    )
