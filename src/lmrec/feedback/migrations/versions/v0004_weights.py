"""Stars and amounts of events in columns of their own, as in tables, in place of one value that was either.

Seconds of a play, which nothing read, are let go: whoever weighs plays by something sends that as the weight.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("lmrec_events", sa.Column("rating", sa.Float(53)))
    op.add_column("lmrec_events", sa.Column("weight", sa.Float(53)))
    op.execute("UPDATE lmrec_events SET rating = value WHERE kind = 'rating'")
    op.execute("UPDATE lmrec_events SET weight = value WHERE kind NOT IN ('rating', 'play') AND value >= 0")
    op.drop_column("lmrec_events", "value")
