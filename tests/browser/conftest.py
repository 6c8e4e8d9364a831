"""A real service over a tiny run, and a real browser that looks at its console."""

import io
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from lmrec.service.serve import address_of, listen, make_server
from lmrec.service.settings import ServiceSettings
from lmrec.service.state import ServiceState, open_state

PATIENCE_MS = 15_000  # a busy machine is no reason to fail


def find_chromium() -> str | None:
    """$LMREC_CHROMIUM, else the one that the system has."""
    named = os.environ.get("LMREC_CHROMIUM")
    places = [named] if named else ["/usr/bin/chromium", "chromium", "google-chrome"]
    return next((found for place in places if (found := shutil.which(place))), None)


@dataclass(frozen=True)
class Service:
    """A server in this process; `api` asks it what a test needs to know or to prepare."""

    address: str
    state: ServiceState
    api: httpx.Client


@contextmanager
def serving(run: Path) -> Iterator[Service]:
    state = open_state(ServiceSettings.for_run(run, watch_s=0.02, threads=1))
    server = make_server(state)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        address = address_of(listening)
        with httpx.Client(base_url=address, timeout=30) as api:
            try:
                end = time.monotonic() + 30
                while api.get("/readyz").status_code != 200:
                    assert time.monotonic() < end, "the service never became ready"
                    time.sleep(0.02)
                yield Service(address, state, api)
            finally:
                server.should_exit = True
                thread.join(30)
    assert not thread.is_alive()


@dataclass
class Visit:
    """A page of the console, and all that went wrong in it or was asked of another machine."""

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def go(self, hash_path: str) -> Page:
        """Open a view as if its address had been typed."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/#/{hash_path}")
        expect(self.page.locator("h1")).to_be_visible()
        return self.page

    def watch(self) -> "Visit":
        def said(message: Any) -> None:
            # The browser itself writes of each answer that is no success; the console shows those to the person.
            if message.type == "error" and not message.text.startswith("Failed to load resource"):
                self.errors.append(message.text)

        def asked(request: Any) -> None:
            if not request.url.startswith((self.address, "about:", "blob:")):
                self.strangers.append(request.url)

        self.page.on("console", said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", asked)
        return self


@pytest.fixture(scope="module", autouse=True)
def quiet_logs(service_logs: io.StringIO) -> io.StringIO:
    return service_logs


@pytest.fixture(scope="module")
def service(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Shared by tests that leave nothing behind that would disturb another one."""
    with serving(Path(shutil.copytree(fitted, tmp_path_factory.mktemp("shared") / "run"))) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip("there is no Chromium here: apt-get install chromium, or name one in LMREC_CHROMIUM")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Browser, address: str, width: int = 1280, height: int = 900) -> Iterator[Visit]:
    """A fresh profile. Fails where a script failed, the content policy was broken, or another machine was asked."""
    context = browser.new_context(viewport=ViewportSize(width=width, height=height), color_scheme="light")
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(context.new_page(), address).watch()
    try:
        yield visit
    finally:
        context.close()
    assert visit.errors == []
    assert visit.strangers == []


@pytest.fixture
def visit(chromium: Browser, service: Service) -> Iterator[Visit]:
    with visiting(chromium, service.address) as found:
        yield found
