"""How many cores are really ours: of the process's affinity and its control group's quota, not of the machine."""

import os
from pathlib import Path


def free_cores() -> int:
    """At least one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, quota_of(Path("/sys/fs/cgroup/cpu.max"))))


def quota_of(file: Path) -> int:
    """Whole cores of a control group's quota ("200000 100000" is two); as good as endless where there is none."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no control group, or "max"
        return 1 << 16
