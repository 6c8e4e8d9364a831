"""`make bench-news`: MIND's impressions by the product's own fit and judge, several seeds; tables for benchmarks/RESULTS.md.

    python -m benchmarks.news [--language zh] [--seeds 3] [--table]

The recipe is recipes/mind-impressions.toml, rivals are the judge's own, chosen on validation lists. What the judge said of
each list is kept in benchmarks/news/results (130 kilobytes a seed), so seeds add up over calls and machines: what is there,
of the recipe as it is now, is not made again. MIND lies in LMREC_DATA. `--table` fits nothing.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.news.seeds import is_made, measure
from benchmarks.news.table import BEGIN, END, Kept, build_section
from benchmarks.pages import write_between
from benchmarks.peers.cells import DATA, ROOT
from benchmarks.peers.steps import in_own_process
from lmrec.errors import LmrecError

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = ROOT / "benchmarks" / "RESULTS.md"
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
    write_between(PAGE, text, BEGIN, END)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.news", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--language", action="append", choices=LANGUAGES, help="one instead of both")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="fit nothing: the table of what is there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
