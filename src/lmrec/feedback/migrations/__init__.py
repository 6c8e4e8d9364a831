"""The store's tables as a row of steps (alembic). A step is never changed once it was released; a new one is added.

The tables of lmrec.feedback.tables are what the last step leaves; a test compares them, on both databases.
"""

from pathlib import Path
from typing import Final

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from sqlalchemy import Connection

from lmrec.feedback.errors import StoreError

VERSION_TABLE: Final = "lmrec_schema"


def migrate(connection: Connection, where: str) -> None:
    """Bring the tables up to date, inside the caller's transaction. StoreError for a store of a newer lmrec."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    scripts = ScriptDirectory(str(Path(__file__).parent))
    current = context.get_current_revision()
    try:
        missing = list(scripts.iterate_revisions("head", current or "base"))
    except RevisionError:
        raise StoreError(
            f"the store {where} has tables of version '{current}', which this lmrec does not know: a newer one made "
            "it. Install that version, or restore a backup from before the upgrade"
        ) from None
    with Operations.context(context):
        for step in reversed(missing):
            step.module.upgrade()
            context.stamp(scripts, step.revision)
