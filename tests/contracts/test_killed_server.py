"""PostgreSQL killed, every process of it, while events and items go in: what was acknowledged is there, once. And one that
hangs, or is gone without a word."""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx

from lmrec.errors import LmrecError
from lmrec.feedback.database import BUSY_WAIT_S, Database, parse_address
from lmrec.feedback.store import Event, ItemPut, Store
from lmrec.feedback.walk import walk_events

from .postgresql import PostgreSQL

N_KILLS = 6
N_THREADS = 3
SERVE = """
import sys
from pathlib import Path
from lmrec.service.serve import serve
from lmrec.service.settings import ServiceSettings
settings = ServiceSettings.for_run(Path(sys.argv[1]), sys.argv[2], port=0, threads=1, drain_s=1, close_s=1)
serve(settings, lambda address: print(address, flush=True))
"""


def test_a_killed_server_loses_nothing_acknowledged(postgresql: PostgreSQL) -> None:
    url, chance = postgresql.new_url(), random.Random(7)
    acknowledged: Counter[int] = Counter()
    items: Counter[int] = Counter()
    stop = threading.Event()

    def send(thread: int) -> None:
        with Store.open(url) as store:
            while not stop.is_set():
                first = acknowledged[thread]
                events = [
                    Event(f"t{thread}-{n}", f"u{thread}", "i", "view", float(n))
                    for n in range(first, first + 1 + first % 7)
                ]
                with suppress(LmrecError):  # not answered: the same is sent again
                    added = store.add_events(events)
                    assert added.accepted + added.duplicates == len(events)
                    acknowledged[thread] += len(events)
                    store.put_items([ItemPut(f"t{thread}", {"n": first})])
                    items[thread] = first

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(N_THREADS)]
    for thread in threads:
        thread.start()
    try:
        begun = time.monotonic() + 30
        while len(items) < N_THREADS:  # to open a store needs a server that answers
            assert time.monotonic() < begun, "not every store was opened"
            time.sleep(0.01)
        for _ in range(N_KILLS):
            time.sleep(chance.uniform(0.2, 0.6))
            before = sum(acknowledged.values())
            postgresql.kill()
            postgresql.start()
            end = time.monotonic() + 30
            while sum(acknowledged.values()) == before:  # the stores find the server again by themselves
                assert time.monotonic() < end, "no event was accepted after the server came back"
                time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    with Store.open(url) as store:
        held = Counter(stored.event.event_id for stored in walk_events(store))
        states = {change.item_id: change.fields for change in store.item_changes(0)}
    assert max(held.values()) == 1
    for number in range(N_THREADS):
        assert not [n for n in range(acknowledged[number]) if f"t{number}-{n}" not in held]
        state = states[f"t{number}"]
        assert state is not None
        assert isinstance(state["n"], int)
        assert state["n"] >= items[number]


def test_a_service_ends_when_told_to_although_its_store_hangs(postgresql: PostgreSQL, run: Path) -> None:
    command = [sys.executable, "-c", SERVE, str(run), postgresql.new_url()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            end = time.monotonic() + 60
            while httpx.get(f"{address}/readyz", timeout=60).status_code != 200:
                assert time.monotonic() < end
                time.sleep(0.05)
            with postgresql.frozen():
                for _ in range(3):
                    answer = httpx.get(f"{address}/readyz", timeout=20)
                    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store")
                asking = threading.Thread(target=_look, args=(address,))
                asking.start()
                time.sleep(0.3)  # it waits for the store now
                process.terminate()
                _, said = process.communicate(timeout=30)
                asking.join()
            assert process.returncode == 1
            assert "stopped without the store" in said
        finally:
            process.kill()


def _look(address: str) -> None:
    with suppress(httpx.HTTPError):
        httpx.get(f"{address}/readyz", timeout=60)


def test_a_server_that_is_gone_without_a_word_is_given_up(postgresql: PostgreSQL) -> None:
    """Nothing here can be unplugged; what libpq was told is all that can be looked at."""
    told = _told(postgresql.new_url())
    wait = int(told["keepalives_idle"]) + int(told["keepalives_interval"]) * int(told["keepalives_count"])
    assert wait <= BUSY_WAIT_S
    assert int(told["tcp_user_timeout"]) == 1_000 * BUSY_WAIT_S
    assert _told(f"{postgresql.new_url()}&tcp_user_timeout=77")["tcp_user_timeout"] == "77"


def _told(url: str) -> dict[str, str]:
    database = Database(parse_address(url))
    with database.read() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        told = {option.keyword.decode(): option.val.decode() for option in driver.pgconn.info if option.val is not None}
    database.close()
    return told
