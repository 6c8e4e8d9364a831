"""How many cores are really ours: of the process's affinity and its control group's quota, not of the machine."""

import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_ENDLESS = 1 << 16


def free_cores() -> int:
    """At least one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, quota_of(_ROOT)))


def quota_of(root: Path) -> int:
    """Whole cores of the quota in a folder of control groups, of either version; as good as endless where there is none.

    Version 2 says "200000 100000" in cpu.max: two. Version 1 has a file for each number, in the folder of its cpu controller.
    """
    texts = [_read(root / "cpu.max")]
    for controller in (root / "cpu", root / "cpu,cpuacct"):
        texts.append(f"{_read(controller / 'cpu.cfs_quota_us')} {_read(controller / 'cpu.cfs_period_us')}")
    return min(_cores(text) for text in texts)


def _cores(text: str) -> int:
    try:
        quota, period = (int(number) for number in text.split())
    except ValueError:  # no control group, or "max"
        return _ENDLESS
    return max(1, quota // period) if quota > 0 and period > 0 else _ENDLESS  # version 1 says -1 for no quota


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
