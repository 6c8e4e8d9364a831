"""`make bench-tuning`: one row a technique, each a fit of its own that differs from the common recipe in that alone.

    python -m benchmarks.tuning.run [--dataset movielens-100k] [--seeds 3 | --seed 1] [--minutes 60] [--only ROW]
        [--small] [--table]

What is judged are the towers by themselves (nothing fused, nothing learnt again from validation): those of the second
stage, where a row has one. What every fit found is kept in benchmarks/tuning/results/ (a few kilobytes a row and seed), so the
table grows over as many calls, days and machines as it takes: the same command goes on where it was stopped, also within a
fit. Seed 0 of all rows comes first, then seed 1; `--seed` fits one alone. A fit that is refused is named. `--minutes` stops
between two fits, `--table` writes the table from what is there. `--small`: a part of the users and few epochs, to see that
every row runs; its numbers say nothing.
"""

import argparse
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.tuning import how_it_trains, what_trains, words
from benchmarks.tuning.bench import FOLDER, PLAIN, TRANSLATORS, Bench, seeds_asked
from benchmarks.tuning.chart import keep_gaps
from benchmarks.tuning.costs import read_costs
from benchmarks.tuning.fits import (
    UNTUNED,
    answer_reranker,
    answer_row,
    counted_steps,
    read_reranker,
    read_row,
    remove_members,
    same_as_plain,
)
from benchmarks.tuning.pairs import ABOUT_DISTILLED, ABOUT_READING, DISTILLED_HEADER, HEADER
from benchmarks.tuning.pairs import line as reranker_line
from benchmarks.tuning.results import Answers
from benchmarks.tuning.rows import Row, slug
from benchmarks.tuning.table import BESIDE, LEGEND, beside_controls, made_from, table, what_rows_set
from lmrec.errors import Interrupted, LmrecError
from lmrec.models.shared_states import sharing_states
from lmrec.workflows.judge import FROZEN, TUNED

# What shares the plain fit's first stage comes first: it is the cheapest to know.
ROWS = (
    *(PLAIN, UNTUNED, *what_trains.LONGER),
    *(*what_trains.FREEZING, *what_trains.RATES, *what_trains.ADAPTERS),
    *(*how_it_trains.REGULARISERS, *words.AUGMENTATION, words.BACK_TRANSLATION, *words.PRETRAINED),
    *(*how_it_trains.ADVERSARIAL, *how_it_trains.OPTIMIZERS, *how_it_trains.MIXED, *what_trains.MODELS),
    *words.LONG_TEXTS,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="movielens-100k", choices=("movielens-100k", "amazon-scientific"))
    parser.add_argument("--seeds", type=int, default=3, help="so many of them, from 0 on")
    parser.add_argument("--seed", type=int, default=None, help="fit this one alone: two checkouts can share the work")
    parser.add_argument("--minutes", type=float, default=None, help="begin no fit after so many")
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="this row alone, and plain")
    parser.add_argument("--small", action="store_true", help="every row on a part of the users, in about 15 minutes")
    parser.add_argument("--table", action="store_true", help="fit nothing: the table of what is there")
    options = parser.parse_args()
    until = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    bench = Bench.open(options.dataset, options.small)
    if len(TRANSLATORS) not in (0, 2):
        sys.exit(f"LMREC_TRANSLATORS names {len(TRANSLATORS)} models: it is two, there and back, with a comma between")
    able = [row for row in ROWS if TRANSLATORS or row is not words.BACK_TRANSLATION]
    same = {row.name: PLAIN.name for row in able if same_as_plain(bench, row)}
    every = (*able, *bench.reranker_rows)
    chosen = [row for row in every if not options.only or row.name in (*options.only, PLAIN.name)]
    refused = {} if options.table else measure(bench, chosen, seeds_asked(options), same, until)
    results = read_results(bench)
    text = whole_table(bench, options, results, same, refused)
    print(f"\n{text}")
    if not options.small:
        keep_gaps(bench.data.name, results, same)
        (FOLDER / f"{bench.data.name}.md").write_text(text + "\n", encoding="utf-8")
    elif refused:
        sys.exit(f"{len(refused)} rows do not run: {', '.join(refused)}")


@sharing_states()
def measure(
    bench: Bench, rows: Sequence[Row], seeds: Iterable[int], same: Collection[str], until: float = float("inf")
) -> dict[str, str]:
    """Fit what is not there yet, until it is late; row -> why it was refused."""
    refused: dict[str, str] = {}
    rerankers = bench.reranker_rows
    for seed in seeds:
        for row in rows:
            is_reranker = row in rerankers
            found, unused = read_reranker(bench, row, seed) if is_reranker else read_row(bench, row, seed)
            if found is not None or row.name in same or row.name in refused:
                continue
            if time.monotonic() > until:
                print("time is over; the same command goes on from here", flush=True)
                return refused
            began = time.monotonic()
            try:
                (answer_reranker if is_reranker else answer_row)(bench, row, seed)
            except Interrupted:
                print(f"stopped in {row.name}; the same command goes on from here", flush=True)
                return refused
            except LmrecError as error:
                refused[row.name] = str(error).splitlines()[0]
            ended = refused.get(row.name, "done") + (f" ({unused})" if unused else "")
            print(f"seed {seed}, {row.name}: {ended}, {time.monotonic() - began:.0f} s", flush=True)
        remove_members(bench, [row for row in rows if row.mix], seed)
    return refused


def read_results(bench: Bench, rows: Sequence[Row] = ROWS) -> dict[str, dict[int, Answers]]:
    """All that is kept and still answers the question; of each file that does not it is said why."""
    seeds: dict[str, list[int]] = {}
    for file in sorted(bench.results.glob("*-*.npz")):
        name, _, number = file.stem.rpartition("-")
        seeds.setdefault(name, []).append(int(number))
    results: dict[str, dict[int, Answers]] = {}
    for row in rows:
        for seed in sorted(seeds.get(slug(row.name), [])):
            found, unused = read_row(bench, row, seed)
            if found is None:
                print(unused)
            else:
                if "lm_steps" not in found.facts:  # it was kept before runs said it
                    found.facts["lm_steps"] = counted_steps(bench, row, seed, found.facts["judged"])
                results.setdefault(row.name, {})[seed] = found
    return results


def read_rerankers(bench: Bench, n_seeds: int) -> list[tuple[Row, int, dict[str, Any]]]:
    """What is kept of rerankers, and of what was distilled from them: (row, seed, what was found)."""
    kept = ((row, seed, read_reranker(bench, row, seed)[0]) for row in bench.reranker_rows for seed in range(n_seeds))
    return [(row, seed, found) for row, seed, found in kept if found is not None]


def reranked_section(bench: Bench, n_seeds: int) -> list[str]:
    """The tables of rerankers and of what was distilled from them, a line a row and seed, and what is missing."""
    rows, kept = bench.reranker_rows, read_rerankers(bench, n_seeds)
    costs = read_costs(bench, rows)
    lines: list[str] = []
    taught: list[str] = []
    for row, seed, found in kept:
        named = {
            "list_read": costs.get(row.name, {}).get("list_read"),
            **found,
            "row": f"{row.name}, seed {seed}, {found['cases']:,} cases",
        }
        (taught if row.distil else lines).append(reranker_line(named))
    shown = ["", "## Rerankers", ""]
    if lines:
        shown += [ABOUT_READING, "", *HEADER, *lines, ""]
    if taught:
        shown += [ABOUT_DISTILLED, "", *DISTILLED_HEADER, *taught, ""]
    known = {row.name for row, _, _ in kept}
    missing = "; ".join(row.name for row in rows if row.name not in known)
    if not bench.has_ratings:
        shown.append("Not measured: rerankers that learn stars. This log has no ratings.")
    return [*shown, *([f"Not measured yet: {missing}."] if missing else [])]


def whole_table(
    bench: Bench,
    options: argparse.Namespace,
    results: Mapping[str, Mapping[int, Answers]],
    same: dict[str, str],
    refused: dict[str, str],
) -> str:
    """The file: how it was made, the table, what its columns are, and what each row sets."""
    rerankers = [found for _, _, found in read_rerankers(bench, options.seeds)]
    stages = {row.name: _stage_of(row, results[row.name]) for row in ROWS if row.mix and results.get(row.name)}
    lines = [f"`python -m benchmarks.tuning.run --dataset {options.dataset}`; {made_from(results, rerankers)}.", ""]
    if bench.n_users is not None:
        n_items = bench.prepared.dataset.catalog.n_items
        lines += [
            f"Learnt from {bench.n_users:,} users, drawn once, and asked of them; all {n_items:,} items ranked.",
            "",
        ]
    lines.append(table([row.name for row in ROWS], results, PLAIN.name, same, read_costs(bench, ROWS), stages))
    lines += [f"\nRefused: {name}: {why}" for name, why in refused.items()]
    lines += [f"\nNot measured: {what}" for what in words.NOT_MEASURED]
    if compared := beside_controls(ROWS, results):
        lines += ["", "Beside the row that differs in the technique alone, NDCG@10:", "", *BESIDE, *compared]
    lines += ["", LEGEND, *reranked_section(bench, options.seeds), "", "## What each row sets", ""]
    lines += [f"All rows: recipes/{bench.data.recipe}.toml with {', '.join(f'`{one}`' for one in bench.common)}.", ""]
    return "\n".join([*lines, *what_rows_set((*ROWS, *bench.reranker_rows), results)])


def _stage_of(row: Row, found: Mapping[int, Answers]) -> str:
    """Which stage of several fits, or of their mean, is judged, and of a soup how many of the fits are in it, seed by seed."""
    stages = {FROZEN: "first stage", TUNED: "second stage"}
    told = " or ".join(sorted({stages.get(one.facts["judged"], "each as validation chose") for one in found.values()}))
    if row.mix != "greedy":
        return told
    joined = ", ".join(str(len(found[seed].facts["soup"])) for seed in sorted(found))
    return f"{told}; {joined} of {len(row.members)} fits"


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
