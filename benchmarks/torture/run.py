"""`make torture`: kill -9 at random moments of ingest, upserts, deletes, updates and swaps; nothing acknowledged may be lost.

Each round starts the service, loads it from several threads over HTTP, and kills it, or an update or a swap beside it, at a
random moment, from before it listens to well into its work. Then it is started again: how long until it is ready is
measured, and all that was acknowledged is asked for: each event once, each item as it was last put or gone.
Clients send again what was not answered, as clients do. The ledger is kept beside the run, so that an interrupted
torture goes on where it was.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.speed.serve.load import free_port
from lmrec.artifacts.generation import read_serving
from lmrec.data.sources.synthetic import planted_world
from lmrec.feedback.store import Store
from lmrec.feedback.walk import walk_events
from lmrec.workflows.train import fit_run

HERE: Final = Path(__file__).parent
VICTIMS: Final = HERE / "victims.py"
N_EVENT_THREADS: Final = 2
N_ITEMS: Final = 6
BACK_S: Final = 5.0
GIVE_UP_S: Final = 120.0
WORDS: Final = "The Joyful Lighthouse and the Parrot"
_MIX: Final = ("serve",) * 6 + ("swap",) * 3 + ("update",)  # who is killed


class TortureError(Exception):
    """Something acknowledged was lost or counted twice, or the service did not come back."""


class Victims:
    """Makes processes and ends them; one at a time."""

    def __init__(self, run: Path, store: str, log: Path) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, VICTIMS, run, store, log], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *what: str | int) -> int:
        assert self._parent.stdin is not None
        print(json.dumps(what), file=self._parent.stdin, flush=True)
        return int(self._line())

    def kill(self, process_id: int, number: int = signal.SIGKILL) -> int:
        """The exit code; it may have ended by itself before."""
        with suppress(ProcessLookupError):
            os.kill(process_id, number)
        return int(self._line())

    def close(self) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(timeout=60)

    def _line(self) -> str:
        assert self._parent.stdout is not None
        line = self._parent.stdout.readline()
        if not line:
            raise TortureError("the parent of the processes has ended; see its log")
        return line


class Ledger:
    """What was acknowledged. `events`: by user, how many of the ids `USER-0`, `USER-1` ... are. `items`: the states that an
    item may be in, a title or None for gone: one where the last change was answered, two where it was not."""

    def __init__(self, file: Path) -> None:
        self._file = file
        known = json.loads(file.read_text()) if file.exists() else {}
        self.events: dict[str, int] = known.get("events", {})
        self.items: dict[str, list[str | None]] = known.get("items", {})
        self.rounds: list[dict[str, Any]] = known.get("rounds", [])
        self._n_begun: int = known.get("begun", len(self.rounds))
        if self._n_begun > len(self.rounds) + known.get("cut", 0):  # the torture itself was ended within a round
            self.items = {}
        self._n_cut = self._n_begun - len(self.rounds)

    def begin(self) -> int:
        """A number for the next round, never given again: what a round did that was cut off is not known."""
        self._n_begun += 1
        self.save()
        return self._n_begun

    def save(self) -> None:
        fresh = self._file.with_suffix(".new")
        known = {"events": self.events, "items": self.items, "rounds": self.rounds}
        fresh.write_text(json.dumps({**known, "begun": self._n_begun, "cut": self._n_cut}))
        os.replace(fresh, self._file)


class Load:
    """Clients of one round. Errors of the connection are what a kill looks like; any other answer than 200 or 503 is not."""

    def __init__(self, base_url: str, ledger: Ledger, number: int) -> None:
        self._url = base_url
        self._ledger = ledger
        self._number = number
        self._stop = threading.Event()
        self.wrong: list[str] = []
        works = [*((self._send_events, n) for n in range(N_EVENT_THREADS)), (self._change_items, 0), (self._ask, 0)]
        self._threads = [threading.Thread(target=work, args=(n,), daemon=True) for work, n in works]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(GIVE_UP_S)

    def _send_events(self, thread: int) -> None:
        user, chance = f"r{self._number}t{thread}", random.Random(self._number)
        self._ledger.events.setdefault(user, 0)
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                first = self._ledger.events[user]
                body = events_body(user, first, chance.randint(1, 20))
                answer = self._try(client, "POST", "/v1/events", body)
                if answer is not None:
                    if answer["accepted"] + answer["duplicates"] != len(body["events"]):
                        self.wrong.append(f"{user}: {len(body['events'])} events were sent, {answer} counted")
                    self._ledger.events[user] = first + len(body["events"])

    def _change_items(self, _: int) -> None:
        chance = random.Random(self._number)
        n = 0
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                n += 1
                item, gone = f"tortured-{chance.randrange(N_ITEMS)}", chance.random() < 0.3
                state = None if gone else f"{WORDS} {self._number} {n}"
                before = self._ledger.items.get(item, [None])
                self._ledger.items[item] = [*before, state]
                path = f"/v1/items/{item}"
                answer = self._try(client, "DELETE", path) if gone else self._try(client, "PUT", path, {"title": state})
                if answer is not None:
                    self._ledger.items[item] = [state]

    def _ask(self, _: int) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                self._try(client, "POST", "/v1/recommendations", {"user_id": f"r{self._number}t0", "k": 5})
                time.sleep(0.01)

    def _try(self, client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
        """The answer, None where there was none or the service was loading or stopping."""
        try:
            response = client.request(method, path, json=body)
        except httpx.HTTPError:
            time.sleep(0.02)
            return None
        if response.status_code == 200:
            return response.json()
        if response.status_code != 503:
            self.wrong.append(f"{method} {path}: {response.status_code} {response.text[:200]}")
        time.sleep(0.02)
        return None


class Torture:
    def __init__(self, folder: Path, store: str, seed: int) -> None:
        self.run, self.store = folder / "run", store
        self.ledger = Ledger(folder / "ledger.json")
        self.log = folder / "log.jsonl"
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._chance = random.Random(seed + len(self.ledger.rounds))
        self._service = Victims(self.run, store, self.log)
        self._others = Victims(self.run, store, self.log)
        self._process_id: int | None = None

    def close(self) -> None:
        if self._process_id is not None:
            self._service.kill(self._process_id)
        self._service.close()
        self._others.close()

    def round(self) -> dict[str, Any]:
        """One kill, the start after it, and what was found. Raises TortureError."""
        number, victim = self.ledger.begin(), self._chance.choice(_MIX)
        if self._process_id is None:
            self._process_id = self._service.start("serve", self._port)
        with Load(self._url, self.ledger, number) as load:
            if victim == "serve":
                time.sleep(self._chance.uniform(0.0, 0.5))  # a service that has just been started is loading still
                self._service.kill(self._process_id)
            else:
                other = self._others.start(victim)
                time.sleep(self._chance.uniform(0.0, 0.5 if victim == "swap" else 2.0))
                self._others.kill(other)
        started = time.monotonic()
        if victim == "serve":
            self._process_id = self._service.start("serve", self._port)
        self._wait_ready()
        back_s = time.monotonic() - started
        self._check(number, load)
        if victim == "serve" and self._chance.random() < 0.3:  # the next kill comes while it loads
            self._service.kill(self._process_id)
            self._process_id = self._service.start("serve", self._port)
        row = {"victim": victim, "back_s": round(back_s, 3), "late": back_s > BACK_S}
        self.ledger.rounds.append(row)
        self.ledger.save()
        return row

    def _wait_ready(self) -> None:
        end = time.monotonic() + GIVE_UP_S
        while time.monotonic() < end and self._process_id is not None and is_running(self._process_id):
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self._url}/readyz").status_code == 200:
                    return
            time.sleep(0.01)
        raise TortureError(f"the service ended by itself, or was not back in {GIVE_UP_S:g} s; see {self.log}")

    def _check(self, number: int, load: Load) -> None:
        """What was acknowledged is there, once, and what is served is what the pointer says or what was before it."""
        if load.wrong:
            raise TortureError("; ".join(load.wrong[:3]))
        read_serving(self.run)
        with httpx.Client(base_url=self._url, timeout=30) as client:
            for thread in range(N_EVENT_THREADS):
                user = f"r{number}t{thread}"
                n_known = self.ledger.events.get(user, 0)
                self._resend(client, user, n_known)
                held = Counter(event["event_id"] for event in client.get(f"/v1/users/{user}").json()["events"])
                lost = [n for n in range(n_known) if f"{user}-{n}" not in held]
                if lost or max(held.values(), default=1) > 1:
                    raise TortureError(
                        f"{user}: lost {lost[:5]}, twice {[id_ for id_, n in held.items() if n > 1][:5]}"
                    )
            for item, states in self.ledger.items.items():
                response = client.get(f"/v1/items/{item}")
                state = response.json()["title"] if response.status_code == 200 else None
                if state not in states:
                    raise TortureError(f"{item} is {state!r}; it was last put as one of {states}")
                self.ledger.items[item] = [state]

    def _resend(self, client: httpx.Client, user: str, n_known: int) -> None:
        """The batch that may have been stored without an answer, and one that was answered."""
        body = events_body(user, max(0, n_known - 10), 30)
        answer = client.post("/v1/events", json=body).json()
        if answer["duplicates"] < min(10, n_known):
            raise TortureError(f"{user}: events that were acknowledged were accepted again: {answer}")
        self.ledger.events[user] = max(0, n_known - 10) + 30

    def check_all(self) -> int:
        """Every event of every round, by the store itself, each once; how many."""
        if self._process_id is not None:
            self._wait_ready()  # it may have been started a moment ago
            process_id, self._process_id = self._process_id, None
            if self._service.kill(process_id, signal.SIGTERM) != 0:
                raise TortureError(f"the service did not stop well; see {self.log}")
        with Store.open(self.store) as store:
            held = Counter(stored.event.event_id for stored in walk_events(store, 0))
            if store.count_events() != len(held):
                raise TortureError(f"{store.count_events() - len(held)} events are stored twice")
        lost = [
            f"{user}-{n}"
            for user, known in self.ledger.events.items()
            for n in range(known)
            if f"{user}-{n}" not in held
        ]
        if lost:
            raise TortureError(f"{len(lost)} acknowledged events are lost, such as {lost[:5]}")
        return len(held)


def events_body(user: str, first: int, n: int) -> dict[str, Any]:
    ids = range(first, first + n)
    return {
        "events": [
            {"event_id": f"{user}-{at}", "user_id": user, "item_id": str(at % 20), "kind": "click"} for at in ids
        ]
    }


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def make_run(folder: Path) -> None:
    """A planted world, fitted in a minute: the words are all-MiniLM-L6-v2's."""
    world = planted_world(n_users=60, n_items=32, n_events_per_user=14, n_topics=4, seed=3)
    items, events = folder / "items.csv", folder / "events.csv"
    world.catalog.frame.write_csv(items)
    log = world.interactions
    rows = [
        f"{log.user_ids[user]},{world.catalog.ids[item]},{int(time_ts)}"
        for user, item, time_ts in zip(log.user_idx, log.item_idx, log.time_ts, strict=True)
    ]
    events.write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    quick = ["training.frozen_epochs=1", "training.tuned_epochs=0", "item.width=16", 'baselines.names=["popularity"]']
    fit_run(items, events, out=folder / "run", overrides=quick, show=False)


def table(rounds: list[dict[str, Any]]) -> str:
    lines = ["| killed | kills | back: median | 99 % | longest | later than 5 s |", "|---|---|---|---|---|---|"]
    for victim in dict.fromkeys(_MIX):
        back = sorted(row["back_s"] for row in rounds if row["victim"] == victim)
        if back:
            middle, near_end = back[len(back) // 2], back[min(len(back) - 1, int(0.99 * len(back)))]
            late = sum(one > BACK_S for one in back)
            lines.append(f"| {victim} | {len(back)} | {middle:.2f} s | {near_end:.2f} s | {back[-1]:.2f} s | {late} |")
    return "\n".join(lines)


@contextmanager
def tortured(folder: Path, store: str, seed: int) -> Iterator[Torture]:
    torture = Torture(folder, store, seed)
    try:
        yield torture
    finally:
        torture.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, default=Path("runs/torture"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long; call again to go on")
    parser.add_argument("--store", help="default: SQLite in the run folder")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "run" / "run.json").exists():
        make_run(folder)
    store = options.store or f"sqlite:///{folder / 'run' / 'service' / 'store.db'}"
    end = time.monotonic() + options.seconds
    with tortured(folder, store, options.seed) as torture:
        while len(torture.ledger.rounds) < options.kills and time.monotonic() < end:
            row = torture.round()
            n = len(torture.ledger.rounds)
            if n % 50 == 0:
                print(f"{n} kills, the last one of {row['victim']}, back in {row['back_s']} s", flush=True)
        n_events = torture.check_all()
    rounds = torture.ledger.rounds
    print(table(rounds))
    print(f"{len(rounds)} kills; {n_events:,} events held, all acknowledged ones among them, none twice; 0 items wrong")
    (folder / "result.json").write_text(json.dumps({"kills": len(rounds), "events": n_events, "rounds": rounds}) + "\n")


if __name__ == "__main__":
    main()
