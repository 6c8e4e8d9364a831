"""Runs that were never trained: a small catalog, a language model of 3 layers, towers as random numbers made them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pytest
import torch

from lmrec.artifacts.checkpoint import (
    ModelConfigs,
    compute_item_vectors,
    read_checkpoint,
    save_checkpoint,
    save_vectors,
)
from lmrec.artifacts.run import RunFolder
from lmrec.data.catalog import Catalog
from lmrec.data.interactions import Interactions
from lmrec.models.collaborative import ALSConfig
from lmrec.models.encoder import EncoderConfig, encode_tokens, load_encoder
from lmrec.models.fusion import FusionWeights
from lmrec.models.heads import HeadConfig
from lmrec.models.two_tower import ItemTowerConfig, TwoTower
from lmrec.models.user_model import UserModelConfig
from lmrec.retrieval.live import LiveRecommender
from lmrec.text.template import Template
from lmrec.text.tokens import load_tokenizer, tokenize_texts
from lmrec.workflows.counting import fit_fusion

MakeLive: TypeAlias = Callable[..., LiveRecommender]

TOPICS = ("rocket galaxy", "whale sailor", "chef bakery", "violin choir")
N_ITEMS = 40


def make_catalog() -> Catalog:
    """Items "0" to "39": ten of each topic; `year` is text as in a csv, `price`, `adult` and `added` are typed."""
    rows = np.arange(N_ITEMS)
    topic = [TOPICS[row % 4] for row in rows]
    frame = pl.DataFrame(
        {
            "item_id": [str(row) for row in rows],
            "title": [f"{words} {row}" for row, words in zip(rows, topic, strict=True)],
            "description": [f"a film of {words}" for words in topic],
            "genre": [words.split()[0].title() for words in topic],
            "year": [str(1980 + row) if row % 10 else None for row in rows],
            "rating": [f"FSK {6 * (row % 4)}" for row in rows],
            "price": [float(row) / 2 for row in rows],
            "stock": [int(row % 5) for row in rows],
            "adult": [bool(row % 7 == 0) for row in rows],
            "added": [f"2024-01-{1 + row % 28:02d}" for row in rows],
        }
    ).with_columns(pl.col("added").str.to_date())
    return Catalog(frame, ("title", "description"), ("genre", "year", "rating", "price", "stock", "adult", "added"))


def make_log() -> Interactions:
    """Item 1 was popular long ago, item 2 is now."""
    day = 86_400.0
    items = [1] * 30 + [2] * 10 + [3] * 5 + [4]
    times = [day * place for place in range(30)] + [day * 1000 + place for place in range(16)]
    return Interactions.from_arrays(["u0", "u1"], np.arange(46) % 2, items, times)


FUSED: dict[str, FusionWeights] = {
    "mixed": FusionWeights(transitions=3.0, content=2.0, borrowed=1.5, repeated=-2.0),
    "transitions": FusionWeights(towers=0.0, transitions=3.0, popularity=0.001),
    "ease": FusionWeights(towers=0.0, ease=3.0, popularity=0.001),
    "bm25_knn": FusionWeights(towers=0.0, bm25_knn=1.0, popularity=0.001),
    "als": FusionWeights(
        towers=0.0,
        als=3.0,
        als_fit=ALSConfig(n_factors=2, regularization=0.1, alpha=5.0, max_history=8),
        popularity=0.001,
    ),
    "ranks": FusionWeights(
        transitions=1.0,
        ease=1.0,
        bm25_knn=1.0,
        als=1.0,
        content=1.0,
        popularity=1.0,
        borrowed=1.5,
        newcomer=1.0,
        ranks=True,
    ),
    "all": FusionWeights(
        transitions=3.0,
        ease=2.0,
        bm25_knn=0.5,
        als=2.0,
        content=2.0,
        popularity=0.2,
        borrowed=1.5,
        newcomer=2.0,
        repeated=-2.0,
    ),
}


def make_tastes() -> Interactions:
    """Even users choose of the items 0 to 13, odd ones of 14 to 27; what comes after has no events. Item 5 is everybody's."""
    rng = np.random.default_rng(0)
    first = np.arange(24) % 2 * 14
    items = np.stack([rng.permutation(np.arange(14)) + start for start in first])[:, :8]
    items[:, 3] = 5
    users, times = np.repeat(np.arange(24), 8), 86_400.0 * np.arange(192)
    return Interactions.from_arrays([f"u{user}" for user in range(24)], users, items.ravel(), times)


def log_of(fused: str | None) -> Interactions:
    return make_log() if fused in (None, "mixed") else make_tastes()


def make_run(
    folder: Path,
    bert: Path,
    *,
    source: str = "text+id",
    user_kind: str = "transformer",
    head: str = "cosine",
    fused: str | None = None,
) -> Path:
    """A whole run folder, of what `FUSED` says; towers and id residuals are random, so that every part of a score counts."""
    configs = ModelConfigs(
        EncoderConfig(name=str(bert), max_tokens=24),
        ItemTowerConfig.model_validate({"width": 16, "whiten": 12, "source": source}),
        UserModelConfig.model_validate({"kind": user_kind, "heads": 2, "max_history": 8}),
        HeadConfig.model_validate({"kind": head}),
    )
    template = Template("{title}. {description}", " | ", 400)
    catalog, log = make_catalog(), log_of(fused)
    run = RunFolder(folder)
    run.data.mkdir(parents=True)
    catalog.save_parquet(run.data / "catalog.parquet")
    log.save_parquet(run.data / "interactions.parquet")
    encoder, tokenizer = load_encoder(bert, configs.encoder), load_tokenizer(bert)
    tokens = tokenize_texts(tokenizer, template.render_items(catalog.frame), configs.encoder.max_tokens)
    text_vec = encode_tokens(encoder, tokens.ids, configs.encoder.batch_tokens, torch.device("cpu"))
    torch.manual_seed(5)
    seen = np.arange(N_ITEMS) != 7
    towers = TwoTower(text_vec, seen, configs.item, configs.user_model, configs.head).eval()
    if towers.item_tower.id_residual is not None:
        torch.nn.init.normal_(towers.item_tower.id_residual.weight, std=0.3)
    fusion = fit_fusion(FUSED[fused], log, N_ITEMS) if fused else None
    save_checkpoint(run.checkpoint, towers, encoder, tokenizer, template, configs, None, fusion=fusion)
    checkpoint = read_checkpoint(run.checkpoint)
    vectors = compute_item_vectors(towers, torch.from_numpy(text_vec))
    save_vectors(run.vectors_file, vectors, checkpoint, catalog.fingerprint)
    run.recipe_file.write_text("[evaluation]\nexclude_seen = true\n", encoding="utf-8")
    run.update_record(status="trained", created="2026-01-01T00:00:00Z")
    return folder


@pytest.fixture(scope="session")
def run_folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("live") / "run", tiny_bert)


@pytest.fixture
def live(run_folder: Path) -> LiveRecommender:
    return LiveRecommender.load(run_folder)


@pytest.fixture(scope="session")
def make_live(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeLive:
    """A recommender of another kind of run, such as make_live(source="id")."""
    made: dict[str, Path] = {}

    def make(**choices: Any) -> LiveRecommender:
        key = repr(sorted(choices.items()))
        if key not in made:
            made[key] = make_run(tmp_path_factory.mktemp("live") / "run", tiny_bert, **choices)
        return LiveRecommender.load(made[key])

    return make
