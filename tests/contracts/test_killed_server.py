"""PostgreSQL killed, every process of it, while events and items go in: what was acknowledged is there, once."""

import random
import threading
import time
from collections import Counter
from contextlib import suppress

from lmrec.errors import LmrecError
from lmrec.feedback.store import Event, ItemPut, Store
from lmrec.feedback.walk import walk_events

from .postgresql import PostgreSQL

N_KILLS = 6
N_THREADS = 3


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
