"""A real PostgreSQL of a test's own, where its programs are installed. It listens at a socket file only."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text


class PostgreSQL:
    def __init__(self) -> None:
        programs = _find_programs()
        if programs is None:
            pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
        self._programs, self._user = programs, _server_user()
        self._folder = Path(tempfile.mkdtemp(prefix="lmrec-pg-"))
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._data = self._folder / "data"
        self._numbers = itertools.count()
        # LC_ALL=C: messages in English, order by bytes.
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    def start(self) -> None:
        # fsync is off: a kill is no power cut, what was written stays with the system.
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._folder / "log", "-o", options)

    def kill(self) -> None:
        """-9, the server and all its children at once."""
        processes = self._processes()
        for process_id in processes:
            with suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        for process_id in processes:
            _wait_for_end(process_id)
        # Where nobody collects ended children their numbers stay taken, and the next server thinks that this one runs.
        for lock in (self._data / "postmaster.pid", self._folder / ".s.PGSQL.5432.lock"):
            lock.unlink()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It keeps its connections and answers none of them."""
        processes = self._processes()
        for process_id in processes:
            os.kill(process_id, signal.SIGSTOP)
        try:
            yield
        finally:
            for process_id in processes:
                with suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGCONT)

    def _processes(self) -> list[int]:
        server = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return [server, *map(int, children)]

    def new_url(self) -> str:
        """Of an empty schema, which is made in a millisecond where a database is 7 MB of files."""
        name = f"lmrec_{next(self._numbers)}"
        address = f"postgresql+psycopg://postgres@/postgres?host={self._folder}"
        admin = create_engine(address, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        admin.dispose()
        return f"{address}&options=-csearch_path%3D{name}"

    def close(self) -> None:
        self._run("pg_ctl", "stop", "-D", self._data, "-m", "immediate")
        shutil.rmtree(self._folder)

    def _run(self, program: str, *rest: str | Path) -> None:
        command = (self._programs / program, *rest)
        subprocess.run(command, user=self._user, cwd=self._folder, check=True, stdout=subprocess.DEVNULL, timeout=60)


def _wait_for_end(process_id: int) -> None:
    """A killed server is still there for a moment, and the next one refuses to start beside it."""
    stat = Path(f"/proc/{process_id}/stat")
    with suppress(FileNotFoundError, ProcessLookupError):
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            pass


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
