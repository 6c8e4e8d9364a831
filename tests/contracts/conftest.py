"""A real PostgreSQL, started once for the session where its programs are installed."""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

NewUrl = Callable[[], str]


@pytest.fixture(scope="session")
def new_postgresql_url() -> Iterator[NewUrl]:
    """A function that makes an empty schema and returns a URL that uses it. The server listens on a socket file only.

    A schema is made in a millisecond, a database is 7 MB of files.
    """
    programs = _find_programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
    user = _server_user()
    folder = Path(tempfile.mkdtemp(prefix="lmrec-pg-"))
    if user is not None:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"

    def run(program: str, *rest: str | Path) -> None:
        command = (programs / program, *rest)
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60)

    # LC_ALL=C: messages in English, order by bytes. fsync is off: these tests never cut the power.
    run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    run("pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", f"-k {folder} -c listen_addresses= -c fsync=off")
    admin = create_engine(f"postgresql+psycopg://postgres@/postgres?host={folder}", isolation_level="AUTOCOMMIT")
    numbers = itertools.count()

    def make() -> str:
        name = f"lmrec_{next(numbers)}"
        with admin.connect() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        return f"postgresql+psycopg://postgres@/postgres?host={folder}&options=-csearch_path%3D{name}"

    try:
        yield make
    finally:
        admin.dispose()
        run("pg_ctl", "stop", "-D", data, "-m", "immediate")
        shutil.rmtree(folder)


def _find_programs() -> Path | None:
    """The folder of initdb, pg_ctl and postgres: on the PATH, else where Debian puts them, the newest first."""
    on_path = shutil.which("pg_ctl")
    places = [Path(on_path).resolve().parent] if on_path else []
    debian = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if folder.parent.name.isdigit()]
    places += sorted(debian, key=lambda folder: int(folder.parent.name), reverse=True)
    whole = (place for place in places if all((place / name).exists() for name in ("initdb", "pg_ctl", "postgres")))
    return next(whole, None)


def _server_user() -> str | None:
    """Whom to run as: PostgreSQL refuses root. None: as we are."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
