"""Which runtime encodes fastest here: each measured on the same texts, with what it is off by."""

import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from lmrec.artifacts.encoder_files import exported_folder
from lmrec.data.catalog import Catalog
from lmrec.data.sources.synthetic import planted_world
from lmrec.errors import RecipeError
from lmrec.fields import IntArray, Ragged
from lmrec.models.encoder import RuntimeName
from lmrec.models.runtime import (
    FAITHFUL,
    RUNTIMES,
    EncoderRuntime,
    build_runtime,
    encode_batches,
    exact_runtime,
    measure_error,
)
from lmrec.recipe import Recipe
from lmrec.text.template import build_template
from lmrec.workflows.encode import PretrainedText, read_texts


@dataclass(frozen=True)
class RuntimeSpeed:
    """texts_per_s: many texts; one_ms: the median for one text alone; error: the largest 1 - cosine to torch-fp32.

    Where the runtime cannot be used here, `trouble` says why and the numbers are None.
    """

    name: RuntimeName
    texts_per_s: float | None = None
    one_ms: float | None = None
    error: float | None = None
    trouble: str = ""

    @property
    def is_usable(self) -> bool:
        return self.error is not None and self.error < FAITHFUL

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "usable": self.is_usable}


def measure_runtimes(recipe: Recipe, catalog: Catalog | None = None, n_texts: int = 512) -> list[RuntimeSpeed]:
    """Fastest usable one first. Without a catalog the texts are those of a planted world."""
    catalog = catalog or planted_world(n_users=1, n_items=n_texts, n_events_per_user=1).catalog
    source = read_texts(catalog, build_template(recipe.template, catalog), recipe.encoder)
    every = source.tokens.ids
    rows = np.random.default_rng(0).permutation(len(every))[:n_texts]
    speeds = [_measure(name, source, every.take(rows)) for name in RUNTIMES]
    return sorted(speeds, key=lambda speed: (not speed.is_usable, -(speed.texts_per_s or 0.0)))


def best_runtime(speeds: list[RuntimeSpeed]) -> RuntimeName:
    """The fastest that is faithful; torch-fp32 always is."""
    return next(speed.name for speed in speeds if speed.is_usable)


def _measure(name: RuntimeName, source: PretrainedText, tokens: Ragged) -> RuntimeSpeed:
    encoder = source.load_encoder()
    try:
        if name == "torch-fp32":
            runtime = exact_runtime(encoder, tokens)
        else:
            runtime = build_runtime(name, encoder, exported_folder(source.location, source.config.pooling))
    except RecipeError as error:
        return RuntimeSpeed(name, trouble=str(error))
    texts_per_s, one_ms = time_runtime(runtime, tokens, source.config.batch_tokens)
    return RuntimeSpeed(name, texts_per_s, one_ms, measure_error(runtime, encoder, tokens))


def time_runtime(runtime: EncoderRuntime, tokens: Ragged, batch_tokens: int) -> tuple[float, float]:
    """Texts a second, of many together, and milliseconds for one alone, the median."""
    rows: IntArray = np.arange(len(tokens))
    one = median(_seconds(runtime, tokens, rows[:1]) for _ in range(30))
    return len(rows) / _seconds(runtime, tokens, rows, batch_tokens), 1000 * one


def _seconds(runtime: EncoderRuntime, tokens: Ragged, rows: IntArray, batch_tokens: int = 1) -> float:
    began = time.perf_counter()
    for _ in encode_batches(runtime, tokens, rows, batch_tokens):
        pass
    return time.perf_counter() - began
