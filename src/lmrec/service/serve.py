"""The service as a process: check, listen, load, answer, drain."""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread, Timer
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from lmrec.artifacts.generation import read_serving
from lmrec.errors import InputError
from lmrec.feedback.store import Store
from lmrec.service.app import create_app
from lmrec.service.logs import log, start_logging
from lmrec.service.security import check_binding
from lmrec.service.settings import ServiceSettings
from lmrec.service.state import ServiceState, open_state

SWITCH_S: Final = 0.0005
"""How long a thread may keep the interpreter while another one wants it. Python's 5 ms are as long as an answer takes: who
has just computed one kept the event loop from sending it (docs/LOG.md)."""
_BACKLOG: Final = 1024  # connections that wait to be taken
_ANSWERS_S: Final = 60
"""A worker that gives no sign of life for so long is started anew. It gives none while it imports torch, and uvicorn's own 5 s
are less than that takes on a busy machine: then no worker ever comes up."""
_SETTINGS: Final = "LMREC_SERVICE_SETTINGS"  # how worker processes get the settings
_PARENT: Final = "LMREC_SERVICE_PARENT"  # and know whose they are: they may be orphans before they can ask


def check_settings(settings: ServiceSettings) -> None:
    """What can be known before listening: run, pointer, store and keys. Raises LmrecError."""
    read_serving(settings.run)
    with Store.open(settings.store) as store:
        check_binding(settings.host, store.has_keys())


def serve(settings: ServiceSettings, started: Callable[[str], None] = lambda address: None) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what was begun. `started` is told the address once we listen.

    Raises LmrecError where the settings are wrong or the generation cannot be loaded.
    """
    check_settings(settings)
    with listen(settings.host, settings.port) as listening, _ending_well():
        start_logging()
        started(address_of(listening))
        if settings.workers > 1:
            # Several processes that share store and run. What another changed each sees before its next answer, a new
            # generation within `watch_s`.
            logging.getLogger("uvicorn.error").setLevel(logging.INFO)  # in this parent: workers that die and start anew
            os.environ[_SETTINGS] = settings.model_dump_json()
            os.environ[_PARENT] = str(os.getpid())
            _Workers(_config("lmrec.service.serve:worker_app", settings), sockets=[listening]).run()
            return
        state = open_state(settings)
        server = make_server(state)

        def stop() -> None:
            server.should_exit = True

        state.on_failure = stop
        last_resort = _end_within(settings.close_s)
        state.on_stop = last_resort.start
        try:
            server.run(sockets=[listening])
        finally:
            last_resort.cancel()  # who called this may have more to do
        if state.failure is not None:
            raise state.failure


class _Workers(Multiprocess):
    """Several processes that answer; told to stop, this parent stops listening with them."""

    def terminate_all(self) -> None:
        for listening in self.sockets:  # else who comes now is let in by the system and waits for nobody
            listening.close()
        super().terminate_all()


def make_server(state: ServiceState) -> uvicorn.Server:
    """A server for one process; `run(sockets=[listen(...)])` answers until `should_exit` is set."""
    sys.setswitchinterval(SWITCH_S)
    return uvicorn.Server(_config(create_app(state), state.settings))


def worker_app() -> FastAPI:
    """The application of one worker process among several."""
    sys.setswitchinterval(SWITCH_S)
    start_logging()
    Thread(target=_stop_without, args=(int(os.environ[_PARENT]),), name="lmrec-parent", daemon=True).start()
    state = open_state(ServiceSettings.model_validate_json(os.environ[_SETTINGS]))
    state.on_stop = _end_within(state.settings.close_s).start
    return create_app(state)


def _end_within(seconds: float) -> Timer:
    """To be started when this process closes: it ends, also where a thread waits for a store that hangs, and where nothing
    but a kill would help. What was acknowledged is on the store's disk by then."""

    def give_up() -> None:
        log("stopped without the store, which does not answer", logging.ERROR)
        os._exit(1)

    timer = Timer(seconds, give_up)
    timer.name, timer.daemon = "lmrec-last-resort", True
    return timer


def _stop_without(parent: int) -> None:
    """End this worker once its parent is gone, such as by kill -9: it would answer on for ever, and nobody would know of it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
    """A socket that connections can wait at. Raises InputError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)[0]
        # With the protocol named, asyncio sets TCP_NODELAY; without that each answer waits 40 ms for an acknowledgement.
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        return listening
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port} cannot be listened at ({error.strerror}). "
            "Choose another port (0 takes a free one), or stop what listens there"
        ) from error


def address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _ending_well() -> Iterator[None]:
    """To be told to stop is no failure: once it has drained, uvicorn raises the signal again, and here it ends."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _config(app: FastAPI | str, settings: ServiceSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=settings.workers,
        log_config=None,  # ours, see logs.py
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=30,
        timeout_worker_healthcheck=_ANSWERS_S,
        timeout_graceful_shutdown=settings.drain_s,
        h11_max_incomplete_event_size=64 * 1024,
    )
