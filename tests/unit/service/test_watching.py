"""Tasks come round at their own pace, and a failing one neither stops the others nor comes round too fast."""

import time
from threading import Event

from lmrec.service.watching import Task, Watcher


def test_tasks_run_and_failures_wait_longer() -> None:
    done: list[str] = []
    failures: list[str] = []
    enough = Event()

    def work() -> None:
        done.append("work")
        if len(done) >= 10:
            enough.set()

    def fail() -> None:
        raise OSError("no disk")

    watcher = Watcher(
        [Task("work", work, 0.005), Task("fail", fail, 0.005, retry_s=60.0)],
        lambda name, error: failures.append(f"{name}: {error}"),
    )
    watcher.start()
    assert enough.wait(10)
    watcher.close()
    n_done = len(done)
    assert failures == ["fail: no disk"]
    time.sleep(0.03)
    assert len(done) == n_done, "nothing runs after close"


def test_closing_what_never_started_is_fine() -> None:
    Watcher([Task("work", lambda: None, 1.0)], lambda name, error: None).close()
