"""Experiments."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "lmrec_experiments",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("running", sa.Integer(), unique=True),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("started_ts", sa.Float(53), nullable=False),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("ended_ts", sa.Float(53)),
        sa.Column("ended_by", sa.Text()),
        sa.Column("why", sa.Text(), nullable=False),
    )
