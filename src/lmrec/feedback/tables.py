"""The store's tables, and the two forms of insert that both databases speak.

| table                  | one row is                                            | goes away                              |
|------------------------|-------------------------------------------------------|----------------------------------------|
| lmrec_events           | one acknowledged event                                | when its user is forgotten             |
| lmrec_forgotten        | a user who asked to be forgotten, and when            | never                                  |
| lmrec_forgotten_events | the mark of an event that is gone, so that a late     | never                                  |
|                        | retry does not bring it back                          |                                        |
| lmrec_shown            | a list that was shown, by request id                  | when it is old; loses user and context |
|                        |                                                       | with its user                          |
| lmrec_items            | the latest state of an item; `fields` NULL = deleted  | never: a tombstone outlives a restart  |
| lmrec_rules            | the latest state of a rule; `spec` NULL = deleted     | never                                  |
| lmrec_reviews          | an item that was flagged, and what was decided        | never                                  |
| lmrec_audit            | one decision                                          | never                                  |
| lmrec_keys             | an API key: its hash, never the key                   | never, only revoked                    |
| lmrec_experiments      | an experiment, running or ended                       | never                                  |

The names start with lmrec_ so that a shop's own `items` in the same database are left alone. Text that holds JSON is
kept as text: SQLite and PostgreSQL then give back the same bytes. The tables are made by migrations/, which a test
compares with this file.
"""

from functools import cache
from typing import Final

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.dialects import postgresql, sqlite

METADATA: Final = MetaData()

# SQLite gives only a plain INTEGER key numbers of its own; there it has 64 bits as well.
_SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")

EVENTS: Final = Table(
    "lmrec_events",
    METADATA,
    Column("seq", _SERIAL, primary_key=True, autoincrement=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("user_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("time_ts", Float(53), nullable=False),
    Column("rating", Float(53)),
    Column("weight", Float(53)),
    Column("request_id", Text),
    Column("flags", Text, nullable=False),  # joined by commas
    Column("received_ts", Float(53), nullable=False),
    Index("lmrec_events_of_user", "user_id", "time_ts", "seq"),
    Index(
        "lmrec_events_of_list",
        "request_id",
        sqlite_where=text("request_id IS NOT NULL"),
        postgresql_where=text("request_id IS NOT NULL"),
    ),
    sqlite_autoincrement=True,  # else the number of a forgotten event is given again, and readers who passed it miss one
)

FORGOTTEN: Final = Table(
    "lmrec_forgotten",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("time_ts", Float(53), nullable=False),
)

FORGOTTEN_EVENTS: Final = Table("lmrec_forgotten_events", METADATA, Column("mark", Text, primary_key=True))

SHOWN: Final = Table(
    "lmrec_shown",
    METADATA,
    Column("request_id", Text, primary_key=True),
    Column("user_id", Text),
    Column("generation", Text, nullable=False),
    Column("item_ids", Text, nullable=False),  # JSON list
    Column("time_ts", Float(53), nullable=False),
    Column("context", Text, nullable=False),  # JSON object
    Index("lmrec_shown_of_user", "user_id", "time_ts"),
    Index("lmrec_shown_by_time", "time_ts"),
)

ITEMS: Final = Table(
    "lmrec_items",
    METADATA,
    Column("item_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False, unique=True),
    Column("fields", Text),  # JSON object
    Column("text_vec", LargeBinary),  # float32, little endian
    Column("fingerprint", Text, nullable=False),
    Column("updated_ts", Float(53), nullable=False),
)

RULES: Final = Table(
    "lmrec_rules",
    METADATA,
    Column("rule_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("spec", Text),  # JSON object
    Column("created_ts", Float(53), nullable=False),
)

REVIEWS: Final = Table(
    "lmrec_reviews",
    METADATA,
    Column("item_id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("flagged_by", Text, nullable=False),
    Column("flagged_ts", Float(53), nullable=False),
    Column("decided_by", Text),
    Column("decided_ts", Float(53)),
    Column("note", Text, nullable=False),
    Index("lmrec_reviews_by_status", "status", "flagged_ts"),
)

AUDIT: Final = Table(
    "lmrec_audit",
    METADATA,
    Column("audit_id", _SERIAL, primary_key=True, autoincrement=True),
    Column("time_ts", Float(53), nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text, nullable=False),  # JSON object
    sqlite_autoincrement=True,
)

KEYS: Final = Table(
    "lmrec_keys",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # joined by commas
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("created_ts", Float(53), nullable=False),
    Column("revoked_ts", Float(53)),
)

EXPERIMENTS: Final = Table(
    "lmrec_experiments",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("running", Integer, unique=True),  # 1 or NULL: the database itself lets only one run
    Column("spec", Text, nullable=False),  # JSON object
    Column("started_ts", Float(53), nullable=False),
    Column("started_by", Text, nullable=False),
    Column("ended_ts", Float(53)),
    Column("ended_by", Text),
    Column("why", Text, nullable=False),
    Column("lists_from_ts", Float(53)),  # its lists from before are let go; NULL: all are here
)


@cache
def insert_or_skip(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """A row whose primary key is known is left as it was."""
    return _insert(dialect, table).on_conflict_do_nothing(index_elements=list(table.primary_key))


@cache
def insert_or_replace(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """A row whose primary key is known gets all the new values."""
    insert = _insert(dialect, table)
    changed = {column.name: insert.excluded[column.name] for column in table.columns if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
