"""Softmax over large catalogs: forward and backward of 4,096 positions x N items x 128, N from 10,000 to a million.

Three forms, each in a process of its own: what a fit uses (`lmrec.training.catalog_softmax`), the plain form (logits whole;
left out where they would take half of the memory that is free), and the sampled form with its 512 draws, which a fit
takes above `objective.max_full_items`. Memory is that of the whole process, torch, the items and their gradient included.
The first size also compares the forms: loss and gradients to 1e-5 of the plain form's largest.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import psutil
import torch
from torch import Tensor

from benchmarks.speed.alone import measure_alone, peak_mb
from benchmarks.speed.figure import Figure
from benchmarks.speed.pictures import draw_growth, slope
from benchmarks.speed.run import results_folder
from lmrec.training.catalog_softmax import full_softmax
from lmrec.training.losses import ObjectiveConfig, SampledSoftmax
from lmrec.training.objectives import Asked, full_softmax_plain
from lmrec.training.samplers import SamplerConfig, build_sampler

WIDTH = 128
N_TARGETS = 4_096
SIZES = (10_000, 100_000, 1_000_000)
FORMS = ("ours", "plain", "sampled")
LIMIT_GB = 2.0
_PLAIN_ARRAYS = 5  # (P, N) arrays that the plain form holds at its peak
_SAME = 1e-5


@dataclass(frozen=True)
class Cost:
    """Of one forward and backward: wall and processor seconds, the process's peak."""

    seconds: float
    busy: float
    peak_mb: float


def main(small: bool) -> list[Figure]:
    sizes, n_targets = ((10_000, 100_000), 512) if small else (SIZES, N_TARGETS)
    error = largest_error(sizes[0], n_targets)
    assert error < _SAME, f"the forms differ by {error:.1e} of the largest gradient, and less than {_SAME:.0e} is asked"
    costs: dict[str, dict[int, Cost]] = {form: {} for form in FORMS}
    for n_items in sizes:
        for form in FORMS:
            if form == "plain" and n_targets * n_items * 4 * _PLAIN_ARRAYS > free_bytes() / 2:
                continue
            costs[form][n_items] = Cost(**measure_alone("benchmarks.speed.softmax", form, n_items, n_targets))
        print(n_items, {form: costs[form].get(n_items) for form in FORMS}, flush=True)
    folder = results_folder(small)
    kept = {form: {n: asdict(cost) for n, cost in of.items()} for form, of in costs.items()}
    (folder / "softmax_sizes.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for name, what in (("busy", "seconds of processor time"), ("peak_mb", "MB, the whole process")):
        series = {form: {float(n): float(getattr(c, name)) for n, c in of.items()} for form, of in costs.items()}
        draw_growth(
            folder / f"softmax_{name}.png",
            series,
            f"items x {WIDTH}",
            what,
            f"{n_targets:,} positions, forward and backward",
        )
    return figures_of(costs, sizes[-1], n_targets, error)


def figures_of(costs: dict[str, dict[int, Cost]], largest: int, n_targets: int, error: float) -> list[Figure]:
    ours, plain, sampled = (costs[form] for form in FORMS)
    both = max(plain)
    threads = torch.get_num_threads()
    size = f"{n_targets:,} positions x {{:,}} items x {WIDTH}, threads: {threads}"
    exact = f"loss and gradients within {error:.0e} of the plain form"
    growth = f"processor time grows as items^{slope({float(n): cost.busy for n, cost in ours.items()}):.2f}"
    draws = f"{SamplerConfig().n_negatives} draws; a fit samples above {ObjectiveConfig().max_full_items:,} items"
    of_largest = (ours[largest], sampled[largest])
    return [
        Figure("softmax, time", ours[both].busy, plain[both].busy, "s", "plain form", f"{size.format(both)}; {exact}"),
        Figure("softmax, memory", ours[both].peak_mb, plain[both].peak_mb, "MB", "plain form", size.format(both)),
        Figure(
            "softmax, most items, memory", of_largest[0].peak_mb / 1024, LIMIT_GB, "GB", "limit", size.format(largest)
        ),
        Figure("softmax, sampled", of_largest[1].busy, of_largest[0].busy, "s", "all items", f"{draws}; {growth}"),
    ]


def make_asked(n_items: int, n_targets: int) -> Asked:
    """Vectors of about unit length, leaves that gradients are taken for."""
    generator = torch.Generator().manual_seed(0)
    user_vec = (torch.randn(n_targets, WIDTH, generator=generator) / WIDTH**0.5).requires_grad_()
    item_vec = (torch.randn(n_items, WIDTH, generator=generator) / WIDTH**0.5).requires_grad_()
    target = torch.randint(n_items, (n_targets,), generator=generator)
    return Asked(user_vec, item_vec, target, torch.ones(n_targets), torch.tensor(10.0, requires_grad=True))


def loss_of(form: str, n_items: int) -> Callable[[Asked], Tensor]:
    match form:
        case "ours" | "plain":
            whole = full_softmax if form == "ours" else full_softmax_plain
            return lambda asked: whole(asked.user_vec, asked.item_vec, asked.target, asked.weight, asked.scale)
        case "sampled":
            counts = np.random.default_rng(1).integers(1, 50, n_items)
            sampled, rng = SampledSoftmax(build_sampler(SamplerConfig(), counts)), np.random.default_rng(0)
            return lambda asked: sampled(asked, rng)
        case _:
            raise SystemExit(f"'{form}' is no form; there are {', '.join(FORMS)}")


def measure_here(form: str, n_items: int, n_targets: int) -> Cost:
    asked, loss = make_asked(n_items, n_targets), loss_of(form, n_items)
    # Small sizes twice, for the first product of a process also starts its threads.
    for _ in range(2 if n_items <= 100_000 else 1):
        asked.user_vec.grad = asked.item_vec.grad = asked.scale.grad = None
        began, busy = time.perf_counter(), time.process_time()
        loss(asked).backward()  # type: ignore[no-untyped-call]
        found = time.perf_counter() - began, time.process_time() - busy
    return Cost(*found, peak_mb())


def largest_error(n_items: int, n_targets: int) -> float:
    """Of loss and gradients, as a share of the plain form's largest value of each."""
    found = []
    for form in ("ours", "plain"):
        asked = make_asked(n_items, n_targets)
        loss = loss_of(form, n_items)(asked)
        found.append([loss.detach(), *torch.autograd.grad(loss, (asked.user_vec, asked.item_vec, asked.scale))])
    return max(float((own - true).abs().max() / true.abs().max()) for own, true in zip(*found, strict=True))


def free_bytes() -> int:
    return int(psutil.virtual_memory().available)


if __name__ == "__main__":
    print(json.dumps(asdict(measure_here(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
