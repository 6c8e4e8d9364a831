"""What the table is made on: a data set, the common recipe, and the folders of what is kept and of what only passes by."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.peers.cells import DATA, Data
from benchmarks.tuning.pairs import reranker_rows
from benchmarks.tuning.results import Question
from benchmarks.tuning.rows import Row
from lmrec.models.fusion import COLLABORATIVE
from lmrec.recipe import Recipe, load_recipe
from lmrec.workflows.prepare import Prepared, prepare_dataset

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
PLAIN = Row("plain", (), "the common recipe: towers, then the two top layers of the language model")
# Nothing fused, whatever a recipe asks for, and nothing learnt again from validation.
TOWERS_ALONE = (
    "training.refit=false",
    *(f"fusion.{part}=false" for part in (*COLLABORATIVE, "content", "popularity")),
)
COMMON = (*TOWERS_ALONE, "tracking.to=[]")
SMALL = (
    "training.frozen_epochs=2",
    "training.tuned_epochs=1",
    "training.validation_cases=200",
    "baselines.search_cases=200",
    "training.max_encoded_items=64",
    "training.tuned_batch_events=500",
)
_CATEGORY = {"movielens-100k": "genres", "amazon-scientific": "categories"}
# Two models of one's own, there and back: folders or hub names with a comma between.
TRANSLATORS = [name for name in os.environ.get("LMREC_TRANSLATORS", "").split(",") if name]
_SMALL_USERS = 60
# What keeps three seeds of all rows from taking days: a part of the users (the whole catalog is ranked all the same), and the
# beginning of texts that are long. So few users' events make two of the recipe's batches, in which the language model would
# step once; in these it steps seven times, and to encode the catalog anew once is enough.
_USERS = {"amazon-scientific": 2500}
_OF_FEW = {
    "amazon-scientific": (
        "encoder.max_tokens=32",
        "training.tuned_batch_events=2000",
        "training.encoder_interval=1",
        "training.tuned_epochs=1",
    )
}
# Descriptions of 800 tokens leave no room for a history: titles are read, and the beginning of the longest.
_IN_PAIRS = {"amazon-scientific": ("reranker.item={title}", "reranker.max_words=10", "reranker.max_tokens=96")}


@dataclass(frozen=True, eq=False)
class Bench:
    """common: overrides of every row. runs: run folders while they are needed, ignored by git. results: what is kept. n_users:
    how many were drawn; None: everybody."""

    data: Data
    prepared: Prepared
    common: tuple[str, ...]
    small: bool
    runs: Path
    results: Path
    n_users: int | None = None

    @classmethod
    def open(cls, dataset: str, small: bool) -> Self:
        data, name = DATA[dataset], f"{dataset}-small" if small else dataset
        runs = ROOT / "runs" / "bench-tuning" / name
        common = (*COMMON, *_OF_FEW.get(dataset, ()), *(SMALL if small else ()))
        recipe = load_recipe(ROOT / "recipes" / f"{data.recipe}.toml", common)
        prepared = data.prepare(recipe)
        n_users = _SMALL_USERS if small else _USERS.get(dataset)
        bench = cls(
            data=data,
            prepared=prepared if n_users is None else few_users(prepared, recipe, n_users),
            common=common,
            small=small,
            runs=runs,
            results=runs / "results" if small else FOLDER / "results" / name,
            n_users=n_users,
        )
        runs.mkdir(parents=True, exist_ok=True)
        return bench

    @property
    def shrink(self) -> int:
        """By how much less a reranker is taught and judged."""
        return 10 if self.small else 1

    @property
    def reranker_rows(self) -> tuple[Row, ...]:
        """Without those that learn ratings, where the log has none."""
        rows = reranker_rows(self.shrink, _IN_PAIRS.get(self.data.name, ()))
        return tuple(
            row for row in rows if self.has_ratings or not any("reranker.task=" in one for one in row.overrides)
        )

    @property
    def has_ratings(self) -> bool:
        return self.prepared.dataset.interactions.rating is not None

    def recipe(self, seed: int, overrides: tuple[str, ...] = ()) -> Recipe:
        """In overrides CATEGORY stands for the data set's column of categories, TRANSLATORS for one's own two models."""
        words = {"CATEGORY": _CATEGORY[self.data.name], "TRANSLATORS": json.dumps(TRANSLATORS)}
        named = list(overrides)
        for word, value in words.items():
            named = [override.replace(word, value) for override in named]
        said = (*self.common, f"training.seed={seed}", *named)
        return load_recipe(ROOT / "recipes" / f"{self.data.recipe}.toml", said)

    def question(self, row: str, seed: int, overrides: tuple[str, ...]) -> Question:
        return Question(row, seed, (*self.common, *overrides), self.prepared.dataset.fingerprint)


def seeds_asked(options: argparse.Namespace) -> Sequence[int]:
    """Which seeds a command is to fit: one alone, or the first so many; of `--small` the first."""
    if options.seed is not None:
        return [options.seed]
    return range(1 if options.small else options.seeds)


def few_users(prepared: Prepared, recipe: Recipe, n: int) -> Prepared:
    """A part of the users, and all items."""
    log = prepared.dataset.interactions
    few = np.random.default_rng(0).permutation(len(log.user_ids))[:n]
    part = replace(prepared.dataset, interactions=log.select(np.isin(log.user_idx, few)))
    return prepare_dataset(part, recipe)
