"""Whether bf16 pays on this machine: emulated, it is several times slower than fp32 (docs/LOG.md)."""

from contextlib import AbstractContextManager
from typing import Any

import torch


def has_fast_bf16() -> bool:
    """Whether the hardware itself computes in bf16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_computes_bf16()


def cpu_computes_bf16() -> bool:
    """The same of the CPU alone, where vectors are encoded whatever else there is."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[Any]:
    """bf16 matrix products inside the block, or none."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
