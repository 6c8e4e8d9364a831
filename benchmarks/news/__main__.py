"""`make bench-news`: MIND's impressions by the product's own fit and judge, several seeds; tables for benchmarks/RESULTS.md.

    python -m benchmarks.news [--language zh] [--seeds 3] [--table]

The recipe is recipes/mind-impressions.toml, rivals are the judge's own, chosen on validation lists. What the judge said of
each list is kept in benchmarks/news/results (tens of kilobytes a seed), so seeds add up over calls and machines: what is there,
of the recipe as it is now, is not made again. MIND lies in LMREC_DATA. `--table` fits nothing.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.news.table import BEGIN, END, Kept, build_section
from benchmarks.peers.cells import DATA, ROOT
from benchmarks.peers.own import fingerprint_of
from benchmarks.peers.steps import in_own_process
from benchmarks.peers.stopwatch import Stopwatch, peak_mb
from benchmarks.speed.scaling import between_marks
from lmrec.artifacts.files import write_json
from lmrec.artifacts.run import describe_environment
from lmrec.errors import LmrecError
from lmrec.recipe import Recipe, load_recipe
from lmrec.workflows.judge import judge_run
from lmrec.workflows.prepare import prepare_source
from lmrec.workflows.train import fit_run

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = ROOT / "benchmarks" / "RESULTS.md"
WORK = ROOT / "runs" / "bench-news"
LANGUAGES = ("en", "zh")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if not options.table:
        mind = DATA["mind"].path
        assert mind is not None
        if not mind.exists():
            print(f"there is no {mind}; LMREC_DATA says where data lie", file=sys.stderr)
            return 2
        for seed in range(options.seeds):
            for language in options.language or LANGUAGES:
                if not is_made(Kept(RESULTS, language, seed)):
                    print(f"{time.strftime('%H:%M:%S')} {language}, seed {seed}", flush=True)
                    try:
                        in_own_process(measure, mind, Kept(RESULTS, language, seed))
                    except LmrecError as error:
                        print(error, file=sys.stderr)
                        return error.exit_code
    text = "\n\n".join(filter(None, (build_section(RESULTS, language) for language in LANGUAGES)))
    print(text)
    PAGE.write_text(between_marks(PAGE.read_text(encoding="utf-8"), text, BEGIN, END), encoding="utf-8")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.news", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--language", action="append", choices=LANGUAGES, help="one instead of both")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="fit nothing: the table of what is there")
    return parser.parse_args(arguments)


def recipe_of(language: str, seed: int) -> Recipe:
    choices = (f"data.language={language}", f"training.seed={seed}", "tracking.to=[]")
    return load_recipe(ROOT / "recipes" / "mind-impressions.toml", choices)


def is_made(kept: Kept) -> bool:
    """Whether it is there, of the recipe as it is now."""
    return kept.is_there and bool(kept.facts()["recipe"] == fingerprint_of(recipe_of(kept.language, kept.seed)))


def measure(mind: Path, kept: Kept) -> None:
    """Fit and judge one seed, and keep what the judge said of each list."""
    recipe = recipe_of(kept.language, kept.seed)
    out, watch = WORK / f"{kept.language}-{kept.seed}", Stopwatch()
    shutil.rmtree(out, ignore_errors=True)
    run = fit_run(None, None, out=out, recipe=recipe, prepared=prepare_source("mind", mind, recipe)).run
    spent = watch.read()
    table = judge_run(run.path).impressions
    if table is None:
        raise LmrecError(f"{mind} holds no lists that can be judged after the cut in time of the recipe's split")
    kept.lists.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.shown_file, kept.lists)
    record = run.read_record()
    facts = {
        "recipe": fingerprint_of(recipe),
        "data_fingerprint": record["data_fingerprint"],
        "fusion": record["fusion"],
        "table": table.as_dict(),
        **spent,
        "peak_mb": peak_mb(),
        **describe_environment(),
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    write_json(kept.file, facts)  # last: it says that the lists are there
    shutil.rmtree(out)


if __name__ == "__main__":
    sys.exit(main())
