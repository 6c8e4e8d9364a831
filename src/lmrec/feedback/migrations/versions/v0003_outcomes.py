"""Events by the list that they follow, and since when an experiment's lists are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NAMES_A_LIST = sa.text("request_id IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "lmrec_events_of_list",
        "lmrec_events",
        ["request_id"],
        sqlite_where=_NAMES_A_LIST,
        postgresql_where=_NAMES_A_LIST,
    )
    op.add_column("lmrec_experiments", sa.Column("lists_from_ts", sa.Float(53)))
