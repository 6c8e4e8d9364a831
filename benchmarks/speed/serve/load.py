"""The client: one process that talks plain HTTP/1.1 over kept connections and keeps every latency.

Closed loop: `concurrency` clients, each of which asks again when it has its answer: what the service can do. Open loop:
requests come at their own times, drawn as a Poisson process, whether or not the last ones are answered, and are timed from when
they should have been sent: what a shop's visitors see. Raw sockets, because httpx would take more of the two cores
than the service does.
"""

import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

_OPEN_CONNECTIONS: Final = 64
_TITLES: Final = 500


@dataclass(frozen=True)
class Plan:
    """What one client process does. `rate`: 0 for a closed loop of `concurrency`, else requests a second."""

    port: int
    seconds: float
    n_items: int
    n_users: int
    concurrency: int = 4
    rate: float = 0.0
    events_per_s: float = 0.0
    upserts_per_s: float = 0.0
    filtered: float = 0.5
    seed: int = 0


@dataclass
class Tally:
    """Milliseconds of each answered request by kind, and what was answered otherwise."""

    ms: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, kind: str, started: float, status: int) -> None:
        if status == 200:
            self.ms.setdefault(kind, []).append(1e3 * (time.perf_counter() - started))
        else:
            name = f"{kind} {status}"
            self.failed[name] = self.failed.get(name, 0) + 1


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = int(self._buffer[:head].lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self._buffer) < head + 4 + length:
            return
        status = int(self._buffer[9:12])
        self.body = bytes(self._buffer[head + 4 : head + 4 + length])
        del self._buffer[: head + 4 + length]
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(0)

    async def ask(self, method: str, path: str, body: dict[str, Any]) -> int:
        """The status; 0 where the connection was lost."""
        assert self._transport is not None
        sent = json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(sent)}\r\n\r\n"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(head.encode() + sent)
        return await self._answer


class Asker:
    """Makes questions, events and items, the same ones for the same seed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._chance = random.Random(plan.seed)
        self._n_sent = 0
        self._run = f"{plan.seed}-{time.time_ns():x}"

    def question(self) -> tuple[str, str, dict[str, Any]]:
        body: dict[str, Any] = {"user_id": self._user(), "k": 10}
        if self._chance.random() < self._plan.filtered:
            body["filter"] = self._chance.choice(_FILTERS)
        return "POST", "/v1/recommendations", body

    def event(self) -> tuple[str, str, dict[str, Any]]:
        self._n_sent += 1
        event = {
            "event_id": f"{self._run}-{self._n_sent}",
            "user_id": self._user(),
            "item_id": self._item(),
            "kind": "click",
        }
        return "POST", "/v1/events", {"events": [event]}

    def item(self) -> tuple[str, str, dict[str, Any]]:
        self._n_sent += 1
        words = " ".join(self._chance.choice(_WORDS) for _ in range(8))
        new = self._chance.random() < 0.5
        item_id = f"new-{self._run}-{self._n_sent}" if new else self._item()
        return "PUT", f"/v1/items/{item_id}", {"title": words, "source": "beauty", "price": 9.5}

    def _user(self) -> str:
        return f"user-{self._chance.randrange(self._plan.n_users)}"

    def _item(self) -> str:
        return f"item-{self._chance.randrange(self._plan.n_items)}"


_FILTERS: Final[tuple[dict[str, Any], ...]] = (
    {"source": "beauty"},
    {"source": ["music", "news"]},
    {"price": {"max": 15}},
    {"price": {"min": 5, "max": 40}, "source": {"not": "retail"}},
)
_WORDS: Final = (
    "gentle cream serum for dry skin night organic oil lamp steel wireless travel soft cotton black red glass "
    "tea kitchen music live acoustic session story winter city secret digital precision thermometer gift box set"
).split()  # fmt: skip


async def measure(plan: Plan) -> Tally:
    tally, asker = Tally(), Asker(plan)
    stop = time.perf_counter() + plan.seconds
    works: list[Awaitable[None]] = []
    if plan.rate:
        works.append(_open_loop(plan, tally, "recommend", plan.rate, asker.question, stop))
    else:
        works += [_closed_loop(plan, tally, asker, stop) for _ in range(plan.concurrency)]
    if plan.events_per_s:
        works.append(_open_loop(plan, tally, "event", plan.events_per_s, asker.event, stop))
    if plan.upserts_per_s:
        works.append(_open_loop(plan, tally, "upsert", plan.upserts_per_s, asker.item, stop))
    started = time.perf_counter()
    await asyncio.gather(*works)
    tally.seconds = time.perf_counter() - started
    return tally


async def _connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def _closed_loop(plan: Plan, tally: Tally, asker: Asker, stop: float) -> None:
    connection = await _connect(plan.port)
    while time.perf_counter() < stop:
        question = asker.question()
        started = time.perf_counter()
        tally.add("recommend", started, await connection.ask(*question))


async def _open_loop(
    plan: Plan, tally: Tally, kind: str, rate: float, make: Callable[[], tuple[str, str, dict[str, Any]]], stop: float
) -> None:
    """Requests at times of their own over connections that are free; who finds none waits, and the wait counts."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(min(_OPEN_CONNECTIONS, max(2, int(rate)))):
        free.put_nowait(await _connect(plan.port))
    sent: set[asyncio.Task[None]] = set()

    async def ask(due: float) -> None:
        connection = await free.get()
        tally.add(kind, due, await connection.ask(*make()))
        free.put_nowait(connection)

    for due in _arrivals(rate, stop, plan.seed):
        pause = due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        task = asyncio.ensure_future(ask(due))
        sent.add(task)
        task.add_done_callback(sent.discard)
    await asyncio.gather(*sent)


def _arrivals(rate: float, stop: float, seed: int) -> Iterator[float]:
    chance = random.Random(seed)
    due = time.perf_counter()
    while (due := due + chance.expovariate(rate)) < stop:
        yield due


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_client(plan: Plan) -> dict[str, Any]:
    """The tally of a client process of its own. It starts without lmrec, which it does not need."""
    command = (sys.executable, __file__, json.dumps(asdict(plan)))
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=plan.seconds + 60)
    tally: dict[str, Any] = json.loads(ended.stdout)
    return tally


def main() -> None:
    """The plan as JSON in the first argument; the tally as JSON on stdout."""
    plan = Plan(**json.loads(sys.argv[1]))
    try:
        import uvloop

        tally = uvloop.run(measure(plan))
    except ImportError:
        tally = asyncio.run(measure(plan))
    json.dump({"ms": tally.ms, "failed": tally.failed, "seconds": tally.seconds}, sys.stdout)


if __name__ == "__main__":
    main()
