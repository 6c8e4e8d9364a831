"""Events, users' rights, shown lists, items, rules, reviews, audit, keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "lmrec_events",
        sa.Column("seq", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.Text(), nullable=False, unique=True),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("time_ts", sa.Float(53), nullable=False),
        sa.Column("value", sa.Float(53)),
        sa.Column("request_id", sa.Text()),
        sa.Column("flags", sa.Text(), nullable=False),
        sa.Column("received_ts", sa.Float(53), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("lmrec_events_of_user", "lmrec_events", ["user_id", "time_ts", "seq"])
    op.create_table(
        "lmrec_forgotten",
        sa.Column("user_id", sa.Text(), primary_key=True),
        sa.Column("time_ts", sa.Float(53), nullable=False),
    )
    op.create_table("lmrec_forgotten_events", sa.Column("mark", sa.Text(), primary_key=True))
    op.create_table(
        "lmrec_shown",
        sa.Column("request_id", sa.Text(), primary_key=True),
        sa.Column("user_id", sa.Text()),
        sa.Column("generation", sa.Text(), nullable=False),
        sa.Column("item_ids", sa.Text(), nullable=False),
        sa.Column("time_ts", sa.Float(53), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
    )
    op.create_index("lmrec_shown_of_user", "lmrec_shown", ["user_id", "time_ts"])
    op.create_index("lmrec_shown_by_time", "lmrec_shown", ["time_ts"])
    op.create_table(
        "lmrec_items",
        sa.Column("item_id", sa.Text(), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False, unique=True),
        sa.Column("fields", sa.Text()),
        sa.Column("text_vec", sa.LargeBinary()),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("updated_ts", sa.Float(53), nullable=False),
    )
    op.create_table(
        "lmrec_rules",
        sa.Column("rule_id", sa.Text(), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False, unique=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text()),
        sa.Column("created_ts", sa.Float(53), nullable=False),
    )
    op.create_table(
        "lmrec_reviews",
        sa.Column("item_id", sa.Text(), primary_key=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("flagged_by", sa.Text(), nullable=False),
        sa.Column("flagged_ts", sa.Float(53), nullable=False),
        sa.Column("decided_by", sa.Text()),
        sa.Column("decided_ts", sa.Float(53)),
        sa.Column("note", sa.Text(), nullable=False),
    )
    op.create_index("lmrec_reviews_by_status", "lmrec_reviews", ["status", "flagged_ts"])
    op.create_table(
        "lmrec_audit",
        sa.Column("audit_id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("time_ts", sa.Float(53), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "lmrec_keys",
        sa.Column("key_id", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False, unique=True),
        sa.Column("created_ts", sa.Float(53), nullable=False),
        sa.Column("revoked_ts", sa.Float(53)),
    )
