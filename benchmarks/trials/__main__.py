"""Other settings of the first stage, beside a recipe as it is: is one worth having?

    python -m benchmarks.trials NAME --data amazon-scientific --protocol P1x --seeds 0 1 \
        --variant "rank 64" item.whiten=64 --variant dot head.kind=dot [--fused gained]

The towers of each variant and seed learn from training alone, on fixed text vectors: the first stage, nothing taught again.
They are asked validation's cases alone, and fused: weights are searched on one half of validation's users and judged on the
other, and the reverse, so that nobody is judged on what chose them. (Which epoch is kept is validation's choice, for all
variants alike.) Nothing of test is read. Differences are to the recipe as it is, paired by case; intervals redraw users.
`--fused gained`: only those variants whose towers alone gained on average, and the recipe. What was found lies in
benchmarks/trials/results/NAME.json.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.cells import Cell, choose_cells
from benchmarks.trials.fits import Answers, Variant, answer_fused, fit_towers, recipes_of, with_seed
from lmrec.artifacts.run import describe_environment
from lmrec.errors import InputError, LmrecError, nearest
from lmrec.evaluation.compare import paired_difference
from lmrec.fields import FloatArray, IntArray

RESULTS = Path(__file__).resolve().parent / "results"
FIRST = Variant("as it is", ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--data", required=True)
    parser.add_argument("--protocol", required=True, help="P1x, P2, ...: benchmarks.peers.cells")
    parser.add_argument("--variant", nargs="+", action="append", required=True, metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for all, the recipe as it is too")
    parser.add_argument("--epochs", type=int, default=8, help="at most, of the first stage")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--fused", choices=("all", "gained", "none"), default="gained")
    parser.add_argument("--cases", type=int, default=4000, help="validation cases at most, both halves")
    options = parser.parse_args()
    try:
        run(options)
    except LmrecError as error:
        parser.exit(1, f"{error}\n")


def run(options: argparse.Namespace) -> None:
    cell, form = choose(options.data, options.protocol)
    variants = [FIRST, *(Variant(name, tuple(sets)) for name, *sets in options.variant)]
    overrides = (f"training.frozen_epochs={options.epochs}", *options.set)
    recipes = dict(zip(variants, recipes_of(cell, form, variants, overrides), strict=True))
    if len({variant.name for variant in variants}) < len(variants):
        raise InputError(f"two variants have one name. Give each its own; '{FIRST.name}' is the recipe as it is")
    environment = describe_environment()  # of the code that runs, whatever is changed meanwhile
    prepared = cell.prepare(recipes[FIRST])
    cases = prepared.split.validation.sample(options.cases, 0)
    towers: dict[str, list[Answers]] = {}
    fused: dict[str, list[Answers]] = {}

    def keep() -> None:
        rows = {
            variant.name: {
                "sets": variant.sets,
                "towers": row(towers[variant.name], towers[FIRST.name], cases.user_idx),
                "fused": row(fused[variant.name], fused[FIRST.name], cases.user_idx) if variant.name in fused else None,
            }
            for variant in variants
            if variant.name in towers
        }
        write(options, {**environment, "cases": len(cases), "users": len(np.unique(cases.user_idx)), "variants": rows})

    with tempfile.TemporaryDirectory(prefix="lmrec-trials-") as folder:
        for at, variant in enumerate(variants):
            towers[variant.name] = [
                fit_towers(with_seed(recipes[variant], seed), prepared, cases, Path(folder) / f"{at}-{seed}")
                for seed in options.seeds
            ]
            keep()
            print(
                "towers", show(variant.name, row(towers[variant.name], towers[FIRST.name], cases.user_idx)), flush=True
            )
        for at, variant in enumerate(variants):
            if not is_fused(options.fused, variant.name, towers):
                continue
            fused[variant.name] = [
                answer_fused(with_seed(recipes[variant], seed), prepared, cases, Path(folder) / f"{at}-{seed}")
                for seed in options.seeds
            ]
            keep()
            print("fused ", show(variant.name, row(fused[variant.name], fused[FIRST.name], cases.user_idx)), flush=True)


def choose(data: str, protocol: str) -> tuple[Cell, str]:
    """The cell, and the form of its protocol. Raises InputError where the name says neither."""
    forms = {
        cell.protocol.form_name(form): (cell, form) for cell in choose_cells(data, None) for form in cell.protocol.forms
    }
    if protocol not in forms:
        raise InputError(f"{data} is not asked '{protocol}'. {nearest(protocol, forms)} All: {', '.join(forms)}")
    return forms[protocol]


def is_fused(wish: str, name: str, towers: Mapping[str, Sequence[Answers]]) -> bool:
    if wish != "gained":
        return wish == "all"
    gained = [one for one in towers if mean_of(towers[one]).mean() > mean_of(towers[FIRST.name]).mean()]
    return name in gained or (name == FIRST.name and bool(gained))


def mean_of(answers: Iterable[Answers]) -> FloatArray:
    """(B,) of each case, over seeds."""
    found: FloatArray = np.mean([one.values for one in answers], axis=0)
    return found


def row(answers: Sequence[Answers], first: Sequence[Answers], users: IntArray) -> dict[str, Any]:
    """What was measured, and the difference to the first: of the means over seeds, and seed by seed."""
    is_first = answers is first
    return {
        "ndcg@10": round(float(mean_of(answers).mean()), 5),
        "difference": None if is_first else gap(mean_of(answers), mean_of(first), users),
        "by seed": [
            {
                "ndcg@10": round(float(one.values.mean()), 5),
                "difference": None if is_first else gap(one.values, other.values, users),
                "cpu_seconds": one.cpu_seconds,
                "words": one.words,
            }
            for one, other in zip(answers, first, strict=True)
        ],
    }


def gap(values: FloatArray, first: FloatArray, users: IntArray) -> list[float]:
    """Mean, and the ends of its interval of 95 %."""
    found = paired_difference(values, first, users)
    return [round(one, 5) for one in (found.mean, found.low, found.high)]


def show(name: str, found: Mapping[str, Any]) -> str:
    seeds = " ".join(f"{one['ndcg@10']:.4f}" for one in found["by seed"])
    seconds = sum(one["cpu_seconds"] for one in found["by seed"])
    apart = "" if found["difference"] is None else "  {:+.4f} [{:+.4f}, {:+.4f}]".format(*found["difference"])
    return f"{name:28} {found['ndcg@10']:.4f}{apart}  by seed {seeds}; {seconds:.0f} s; {found['by seed'][0]['words']}"


def write(options: argparse.Namespace, found: Mapping[str, Any]) -> None:
    asked = {name: getattr(options, name) for name in ("data", "protocol", "set", "epochs", "seeds", "fused")}
    made = time.strftime("%Y-%m-%d", time.gmtime())
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**asked, "made": made, **found}, indent=1)
    (RESULTS / f"{options.name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
