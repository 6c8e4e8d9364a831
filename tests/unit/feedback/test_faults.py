"""Disks and files that go wrong: a sentence that names the store and the way out, and no damage."""

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from lmrec.errors import InputError
from lmrec.feedback import database
from lmrec.feedback.store import Added, Event, Store, StoreBusyError, StoreError


def make_event(n: int) -> Event:
    return Event(f"e{n}", "ann", "i1", "view", float(n))


def run_child(script: str, *arguments: object) -> dict[str, object]:
    """Run Python that prints one JSON object last, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


# Addresses


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("store.db", "store 'store.db' is no URL. Give sqlite:///"),
        ("", "store '' is no URL"),
        ("mysql://root:hush@db/shop", "is of the kind 'mysql', which lmrec cannot use"),
        ("postgresql+psycopg2://root:hush@db/shop", "is of the kind 'postgresql+psycopg2'"),
        ("sqlite://", "does not name a file"),
        ("sqlite:///:memory:", "does not name a file"),
        ("sqlite://host/store.db", "does not name a file"),
        ("sqlite:////tmp/store.db?mode=ro", "does not name a file"),
        ("sqlite:////no/such/folder/store.db", "the folder /no/such does not exist. Make it, or correct the path"),
        ("sqlite:////tmp", "is a folder; name a file in it"),
    ],
)
def test_a_wrong_address_is_wrong_input(url: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Store.open(url)
    assert message in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(StoreError, match="does not answer") as caught:
        Store.open("postgresql://shop:hush@127.0.0.1:9/shop")
    assert "127.0.0.1:9" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open("sqlite:///folder/store.db") as store:
        monkeypatch.chdir("/")
        store.add_events([make_event(1)])
        assert store.count_events() == 1
    assert (tmp_path / "folder" / "store.db").is_file()


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        store.add_events([make_event(1)])
        rights = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert rights == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


# Disks


READ_ONLY = """
    import json, os, sys
    from pathlib import Path
    from lmrec.feedback.store import Event, Store, StoreError
    warm, folder = map(Path, sys.argv[1:])
    Store.open(f"sqlite:///{warm}/store.db").close()  # all that is imported late is imported now
    for path in [*folder.glob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.getuid() == 0:
        os.setuid(65534)  # nothing is read-only to root
    try:
        Store.open(f"sqlite:///{folder}/store.db")
        print(json.dumps({"error": None}))
    except StoreError as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that any user may enter."""
    for path in (tmp_path, *tmp_path.parents[:3]):  # where tests run in parallel, a worker's own folder lies between
        if path.stat().st_uid == os.getuid() and path != Path("/tmp"):
            path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_cannot_be_written(open_folder: Path, exists: bool) -> None:
    warm, folder = open_folder / "warm", open_folder / "store"
    warm.mkdir()
    folder.mkdir()
    if exists:
        Store.open(f"sqlite:///{folder}/store.db").close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    said = str(run_child(READ_ONLY, warm, folder)["error"])
    assert f"{folder}/store.db" in said
    assert "Make the file and its folder writable, or name another store" in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


FULL = """
    import json, resource, sys
    from lmrec.feedback.store import Event, Store, StoreError
    url = sys.argv[1]
    store = Store.open(url)
    acknowledged, said = [], ""

    def send(n):
        events = [Event(f"e{n}-{place}", "ann", "i1", "view", float(n), request_id="r" * 200) for place in range(50)]
        added = store.add_events(events)
        acknowledged.extend(event.event_id for event in events)
        return added.accepted

    send(0)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, unlimited[1]))
    n = 1
    while not said:
        try:
            send(n)
            n += 1
        except StoreError as error:
            said = str(error)
    readable, trouble = store.count_events(), store.write_trouble
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    accepted = send(n)
    print(json.dumps({"acknowledged": acknowledged, "said": said, "readable": readable, "accepted": accepted,
                      "trouble": [trouble, store.write_trouble]}))
"""


def test_a_full_disk_fails_the_write_keeps_the_rest_and_heals(tmp_path: Path) -> None:
    """The child does not close its store: what it acknowledged is on the disk all the same."""
    url = f"sqlite:///{tmp_path}/store.db"
    found = run_child(FULL, url)
    acknowledged = found["acknowledged"]
    assert isinstance(acknowledged, list)
    assert "reading or writing its disk failed; check the disk and its free space, then send again" in str(
        found["said"]
    )
    assert found["readable"] == len(acknowledged) - 50  # before the last one, which went through once there was room
    trouble = found["trouble"]
    assert isinstance(trouble, list)
    assert trouble[0].startswith("reading or writing its disk failed; check the disk")
    assert trouble[1] is None
    assert found["accepted"] == 50  # nothing of the write that failed had stayed
    with Store.open(url) as store:
        assert [one.event.event_id for one in store.events_after(0, 10**6)] == acknowledged


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("user,item,time\n" * 200)
    with pytest.raises(
        StoreError, match="it is no SQLite file, or is damaged; restore a backup, or name another store"
    ):
        Store.open(f"sqlite:///{tmp_path}/store.db")
    assert (tmp_path / "store.db").read_text() == "user,item,time\n" * 200


def test_a_file_with_damaged_pages(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    with Store.open(f"sqlite:///{file}") as store:
        store.add_events([make_event(n) for n in range(3000)])
    n_bytes = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(4096 * 20)
        stream.write(b"\xa5" * (n_bytes - 4096 * 20))
    with (
        pytest.raises(StoreError, match="damaged; stop the service and restore a backup"),
        Store.open(f"sqlite:///{file}") as store,
    ):
        store.events_after(0, 10**6)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_goes_away_is_noticed_before_anything_is_acknowledged(tmp_path: Path, how: str) -> None:
    file = tmp_path / "store.db"
    with Store.open(f"sqlite:///{file}") as store:
        store.add_events([make_event(1)])
        file.rename(tmp_path / "elsewhere.db")
        if how == "replaced":
            file.write_bytes((tmp_path / "elsewhere.db").read_bytes())
        with pytest.raises(StoreError, match="was moved, deleted or replaced while it was in use. Put the file back"):
            store.add_events([make_event(2)])
        with pytest.raises(StoreError, match="was moved, deleted or replaced"):
            store.ping()
        (tmp_path / "elsewhere.db").replace(file)
        assert store.add_events([make_event(1), make_event(2)]) == Added(1, 1)


def test_another_process_that_keeps_the_lock_makes_the_store_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_WAIT_S", 0.1)
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        store.add_events([make_event(1)])
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="another process holds its write lock; try again"):
            store.add_events([make_event(2)])
        assert [one.seq for one in store.history("ann", 10)] == [1]  # who only reads waits for nobody
        other.execute("ROLLBACK")
        other.close()
        assert store.add_events([make_event(2)]) == Added(1, 0)


def test_a_new_file_that_another_process_is_opening_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # before the file is in WAL mode: SQLite itself refuses to wait for this one
    release = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    release.start()
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        assert store.add_events([make_event(1)]) == Added(1, 0)
    release.join()
    other.close()


def test_a_table_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "store.db") as shop:
        shop.execute("CREATE TABLE lmrec_events (mine TEXT)")
    shop.close()
    with pytest.raises(StoreError, match="table lmrec_events already exists"):
        Store.open(f"sqlite:///{tmp_path}/store.db")
    with sqlite3.connect(tmp_path / "store.db") as shop:
        assert shop.execute("SELECT name FROM sqlite_master").fetchall() == [("lmrec_events",)]
    shop.close()


# What SQLite is asked for


def test_the_bytes_of_a_forgotten_user_are_gone_from_the_files(tmp_path: Path) -> None:
    def on_disk(word: bytes) -> bool:
        return any(word in path.read_bytes() for path in tmp_path.iterdir())

    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        others = [Event(f"o{n}", f"user{n}", "common", "view", float(n)) for n in range(500)]
        secrets = [Event(f"s{n}", "ann", f"embarrassing{n}", "view", float(n)) for n in range(500)]
        store.add_events([event for pair in zip(others, secrets, strict=True) for event in pair])
        assert on_disk(b"embarrassing")
        store.forget_user("ann")
        assert not on_disk(b"embarrassing")
        assert on_disk(b"common")


def test_a_history_is_read_from_an_index_in_its_order(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        store.add_events([make_event(n) for n in range(100)])
    reader = sqlite3.connect(tmp_path / "store.db")
    query = "SELECT item_id FROM lmrec_events WHERE user_id = 'ann' ORDER BY time_ts DESC, seq DESC LIMIT 100"
    (plan,) = reader.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert "USING INDEX lmrec_events_of_user (user_id=?)" in plan[-1]
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.close()


def test_a_commit_is_flushed_to_the_disk(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store, store._database.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
