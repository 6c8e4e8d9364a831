"""A real server on a free port of this process, and a client of it: what tests of the service share."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lmrec.artifacts.generation import finish_generation, new_generation_folder
from lmrec.service.serve import address_of, listen, make_server
from lmrec.service.settings import ServiceSettings
from lmrec.service.state import ServiceState, open_state

WORDS = "The Joyful Lighthouse and the Parrot"  # of the planted world, so that the tiny tokenizer knows them
NEW_ITEM = {"title": WORDS, "description": "A funny tale of a reef, a tiger and a playful vine."}


@dataclass(frozen=True)
class Running:
    """A server in this process, and a client of it."""

    client: httpx.Client
    state: ServiceState

    def get(self, path: str, **more: Any) -> Any:
        return self._ok(self.client.get(path, **more))

    def post(self, path: str, body: Any, **more: Any) -> Any:
        return self._ok(self.client.post(path, json=body, **more))

    def put(self, path: str, body: Any) -> Any:
        return self._ok(self.client.put(path, json=body))

    def delete(self, path: str) -> Any:
        return self._ok(self.client.delete(path))

    def recommend(self, **question: Any) -> Any:
        return self.post("/v1/recommendations", question)

    def shown(self, **question: Any) -> list[str]:
        return [item["item_id"] for item in self.recommend(**{"k": 100, **question})["items"]]

    @staticmethod
    def _ok(response: httpx.Response) -> Any:
        assert response.status_code == 200, response.text
        return response.json()


@contextmanager
def running(run: Path, **settings: Any) -> Iterator[Running]:
    state = open_state(ServiceSettings.for_run(run, **{"watch_s": 0.02, "threads": 1, **settings}))
    server = make_server(state)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        with httpx.Client(base_url=address_of(listening), timeout=30) as client:
            try:
                until(lambda: client.get("/readyz").status_code == 200)
                yield Running(client, state)
            finally:
                server.should_exit = True
                thread.join(30)
    assert not thread.is_alive()


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def new_generation(run: Path, why: str = "a copy") -> str:
    """The name of a generation that is a copy of the run."""
    folder = new_generation_folder(run)
    for name in ("run.json", "recipe.toml"):
        shutil.copy(run / name, folder / name)
    for name in ("data", "checkpoint", "vectors"):
        shutil.copytree(run / name, folder / name)
    return finish_generation(folder, why).name
