"""kill -9 in the middle of everything: what was acknowledged is there, once, and the store opens as if nothing was."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lmrec.feedback.store import Store, StoredEvent

from .ingest_child import N_THREADS

N_KILLS = 75  # and 25 of the whole service: tests/flow/test_torture.py


@dataclass
class Acknowledged:
    """What the killed processes said was stored, by thread."""

    n_events: Counter[int] = field(default_factory=Counter)  # events 0 .. n-1 of the thread
    items: dict[int, int] = field(default_factory=dict)
    version: int = 0
    n_accepted: int = 0

    def read(self, text: str) -> None:
        for line in text.splitlines():
            what, *numbers = line.split()
            thread, n, third, _ = map(int, numbers)
            if what == "events":
                self.n_events[thread] = max(self.n_events[thread], n)
                self.n_accepted += third
            else:
                self.items[thread] = n
                self.version = max(self.version, third)


def all_events(store: Store) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    while some := store.events_after(found[-1].seq if found else 0, 5_000):
        found += some
    return found


def check(store: Store, acknowledged: Acknowledged) -> None:
    ids = Counter(one.event.event_id for one in all_events(store))
    assert all(count == 1 for count in ids.values()), "an event was counted twice"
    assert sum(ids.values()) == store.count_events()
    for thread in range(N_THREADS):
        lost = [n for n in range(acknowledged.n_events[thread]) if f"t{thread}-{n}" not in ids]
        assert not lost, f"acknowledged events of thread {thread} are lost: {lost[:10]}"
        assert len(store.history(f"u{thread}", 10**6)) == sum(name.startswith(f"t{thread}-") for name in ids)
    # An answer that was on its way when the kill came was never noted, so there may be more than acknowledged.
    assert acknowledged.n_accepted <= len(ids)
    states = {change.item_id: change.fields for change in store.item_changes(0)}
    for thread, n in acknowledged.items.items():
        state = states[f"t{thread}"]
        assert state is not None
        assert isinstance(state["n"], int)
        assert state["n"] >= n, "an acknowledged item is lost"
    assert store.items_version() >= acknowledged.version


def test_no_kill_loses_or_doubles_what_was_acknowledged(tmp_path: Path) -> None:
    url, acks = f"sqlite:///{tmp_path}/store.db", tmp_path / "acks"
    acks.touch()
    chance = random.Random(7)
    acknowledged = Acknowledged()
    parent = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("ingest_child.py"), url, acks],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    read_to = 0
    try:
        for kill_round in range(N_KILLS):
            # Start again a little before what is known to be stored, as a client does that lost an answer.
            first = max(0, min((acknowledged.n_events[thread] for thread in range(N_THREADS)), default=0) - 5)
            print(kill_round, first, file=parent.stdin, flush=True)
            child = int(parent.stdout.readline())
            time.sleep(chance.uniform(0.0, 0.2))  # from before the tables are made to well into ingest
            os.kill(child, signal.SIGKILL)
            assert parent.stdout.readline() == "ended\n"
            with acks.open() as stream:
                stream.seek(read_to)
                acknowledged.read(stream.read())
                read_to = stream.tell()
            with Store.open(url) as store:
                check(store, acknowledged)
    finally:
        parent.stdin.close()
        parent.wait(timeout=30)
        parent.stdout.close()
    assert sum(acknowledged.n_events.values()) > N_KILLS, "the children were killed before they did anything"
