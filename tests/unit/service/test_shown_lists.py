"""Shown lists, written behind: all of them, in few writes, and none after its user was forgotten."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from lmrec.feedback.errors import StoreError
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import Store
from lmrec.service.shown_lists import ShownLists


def made(n: int, user: str = "ann") -> Shown:
    return Shown(f"r{n}", user, "0", ("a",), float(n), {})


def test_many_lists_are_few_writes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    whole = store.queue_shown

    def counted(lists: Sequence[Shown]) -> "Future[None]":
        writes.append(len(lists))
        return whole(lists)

    monkeypatch.setattr(store, "queue_shown", counted)
    lost: list[int] = []
    shown = ShownLists(store, lost.append)
    for n in range(500):
        shown.add(made(n))
    shown.close()
    shown.add(made(500))
    assert sum(writes) == 500
    assert len(writes) < 50
    assert lost == [1], "after the end lists are let go, and that is said"
    assert store.shown("r499") == made(499)


def test_they_are_written_without_being_asked_for(store: Store) -> None:
    shown = ShownLists(store, lambda n: None)
    shown.add(made(1))
    end = time.monotonic() + 10
    while store.shown("r1") is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    shown.close()


def test_what_was_added_is_forgotten_too(store: Store) -> None:
    shown = ShownLists(store, lambda n: None)
    for n in range(20):
        shown.add(made(n, f"u{n}"))
        shown.flush()
        assert [one.request_id for one in store.export_user(f"u{n}").shown] == [f"r{n}"]
        store.forget_user(f"u{n}")
        assert store.export_user(f"u{n}").shown == []
    shown.close()


def test_a_store_that_fails_loses_lists_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(lists: Any) -> "Future[None]":
        raise StoreError("the disk is full")

    lost: list[int] = []
    shown = ShownLists(store, lost.append)
    monkeypatch.setattr(store, "queue_shown", fail)
    for n in range(3):
        shown.add(made(n))
    shown.flush()
    monkeypatch.undo()
    shown.add(made(7))
    shown.close()
    assert sum(lost) == 3
    assert store.shown("r7") == made(7)
