"""A run of 100,000 items to be served under load, put together without a fit.

Real are: the words (titles of Amazon Beauty and Scientific, MIND, Last.fm and Online Retail; beyond their 40,000 the head of
one title is joined to the tail of another of the same source), the language model and its tokenizer, every file of the run
folder, and the store with its events. Made up are: text vectors (the mean of the language model's own word embeddings, where
encoding 100,000 texts would take longer than everything else), the towers' weights (drawn, not learnt) and the log (users
with a taste for two sources and popular items). Speed does not ask whether a weight was learnt.
"""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from lmrec.artifacts.checkpoint import ModelConfigs, compute_item_vectors, save_checkpoint, save_vectors
from lmrec.artifacts.pretrained import locate_pretrained
from lmrec.artifacts.run import RunFolder, create_run
from lmrec.data.catalog import Catalog
from lmrec.data.interactions import Interactions
from lmrec.feedback.events import Event
from lmrec.feedback.store import Store
from lmrec.models.collaborative import LogArrays
from lmrec.models.encoder import EncoderConfig, load_encoder
from lmrec.models.fusion import Fusion, FusionWeights
from lmrec.models.heads import HeadConfig
from lmrec.models.transitions import ItemTransitions
from lmrec.models.two_tower import ItemTowerConfig, TwoTower
from lmrec.models.user_model import UserModelConfig
from lmrec.recipe import Recipe, recipe_toml
from lmrec.text.template import TemplateConfig, build_template
from lmrec.text.tokens import load_tokenizer, tokenize_texts

SECONDS_A_DAY: Final = 86_400.0
START_TS: Final = 1_700_000_000.0
_ENCODER: Final = "all-MiniLM-L6-v2"


@dataclass(frozen=True)
class WorldSize:
    """`log_users` are in the run's own log, `store_users` in the store, where each has `store_events` events."""

    items: int = 100_000
    log_users: int = 20_000
    log_events: int = 30
    store_users: int = 5_000
    store_events: int = 40


@dataclass(frozen=True)
class World:
    """The run folder, and who may be asked about."""

    run: Path
    n_items: int
    store_users: list[str]


def build_world(folder: Path, data: Path, size: WorldSize, content: float, seed: int = 0) -> World:
    """The world in `folder`, made if it is not there. content: weight of the bare words, 0 for none (rows of 128 numbers
    instead of 512)."""
    users = [f"user-{n}" for n in range(size.store_users)]
    if (folder / "run.json").exists() and RunFolder(folder).read_record()["status"] == "trained":
        return World(folder, size.items, users)
    chance = np.random.default_rng(seed)
    catalog = _catalog(data, size.items, chance)
    log = _log(catalog, size, chance)
    run = create_run(folder, resume=False)
    catalog.save_parquet(run.data / "catalog.parquet")
    log.save_parquet(run.data / "interactions.parquet")
    _save_model(run, catalog, log, content, seed)
    _fill_store(folder, catalog, users, size, chance)
    run.recipe_file.write_text(recipe_toml(Recipe()), encoding="utf-8")
    run.update_record(status="trained", created="2026-01-01T00:00:00+00:00", training={})
    return World(folder, size.items, users)


def _catalog(data: Path, n_items: int, chance: np.random.Generator) -> Catalog:
    texts = [(source, title) for source, title in _titles(data)]
    by_source: dict[str, list[str]] = {}
    for source, title in texts:
        by_source.setdefault(source, []).append(title)
    sources = sorted(by_source)
    while len(texts) < n_items:
        source = sources[int(chance.integers(len(sources)))]
        head, tail = (by_source[source][int(n)].split() for n in chance.integers(len(by_source[source]), size=2))
        texts.append((source, " ".join([*head[: max(1, len(head) // 2)], *tail[len(tail) // 2 :]])))
    order = chance.permutation(len(texts))[:n_items]
    frame = pl.DataFrame(
        {
            "item_id": [f"item-{row}" for row in range(n_items)],
            "title": [texts[int(at)][1][:200] for at in order],
            "source": [texts[int(at)][0] for at in order],
            "price": np.round(chance.lognormal(2.5, 0.8, n_items), 2),
        }
    )
    return Catalog(frame, ("title",), ("source", "price"))


def _titles(data: Path) -> Iterator[tuple[str, str]]:
    """(source, title), each title once."""
    found: dict[str, list[str]] = {
        "beauty": pl.read_parquet(data / "amazon-beauty" / "items.parquet")["title"].to_list(),
        "scientific": pl.read_parquet(data / "amazon-scientific" / "items.parquet")["title"].to_list(),
        "news": [line.split("\t")[3] for line in (data / "mind" / "news.tsv").read_text("utf-8").splitlines()],
        "retail": pl.read_parquet(data / "online-retail" / "online_retail.parquet")["Description"].to_list(),
    }
    with zipfile.ZipFile(next((data / "lastfm").glob("*.zip"))) as archive:
        lines = io.TextIOWrapper(archive.open("artists.dat"), "utf-8", errors="replace").read().splitlines()[1:]
    found["music"] = [line.split("\t")[1] for line in lines]
    for source, titles in found.items():
        for title in dict.fromkeys(title.strip() for title in titles if title):
            if title:
                yield source, title


def _log(catalog: Catalog, size: WorldSize, chance: np.random.Generator) -> Interactions:
    """Users with a taste for two sources, among which popular items are chosen more often."""
    n_events = size.log_users * size.log_events
    users = np.repeat(np.arange(size.log_users), size.log_events)
    items = _choices(catalog, size.log_users, size.log_events, chance)
    times = START_TS + chance.uniform(0, 300 * SECONDS_A_DAY, n_events)
    return Interactions.from_arrays([f"logged-{n}" for n in range(size.log_users)], users, items, times)


def _choices(catalog: Catalog, n_users: int, n_each: int, chance: np.random.Generator) -> npt.NDArray[np.int64]:
    """(n_users * n_each,) rows of items, user by user."""
    source = catalog.frame["source"].cast(pl.Categorical).to_physical().to_numpy()
    rows_of = [np.flatnonzero(source == one) for one in np.unique(source)]
    tastes = chance.integers(len(rows_of), size=(n_users, 2))
    taste = np.take_along_axis(tastes, chance.integers(2, size=(n_users, n_each)), axis=1).ravel()
    # Popularity falls with the rank as in a Zipf law, cut to the source's length.
    place = chance.random(len(taste)) ** 3
    return np.array([rows_of[one][int(share * len(rows_of[one]))] for one, share in zip(taste, place, strict=True)])


def _save_model(run: RunFolder, catalog: Catalog, log: Interactions, content: float, seed: int) -> None:
    torch.manual_seed(seed)
    configs = ModelConfigs(EncoderConfig(name=_ENCODER), ItemTowerConfig(), UserModelConfig(), HeadConfig())
    where = locate_pretrained(_ENCODER)
    encoder, tokenizer = load_encoder(where, configs.encoder).eval(), load_tokenizer(where)
    template = build_template(TemplateConfig(), catalog)
    tokens = tokenize_texts(tokenizer, template.render_items(catalog.frame), 32)
    words = cast(Any, encoder.backbone).get_input_embeddings().weight.detach()
    ids, starts = (
        torch.from_numpy(np.asarray(part, np.int64)) for part in (tokens.ids.values, tokens.ids.offsets[:-1])
    )
    text_vec = torch.nn.functional.embedding_bag(ids, words, starts, mode="mean").numpy()
    seen = np.bincount(log.item_idx, minlength=catalog.n_items) > 0
    towers = TwoTower(text_vec, seen, configs.item, configs.user_model, configs.head).eval()
    transitions = ItemTransitions().fit(
        LogArrays(log.user_idx, log.item_idx, log.time_ts, log.weight, log.n_users, catalog.n_items)
    )
    fusion = Fusion(FusionWeights(transitions=20.0, content=content), {"transitions": transitions.neighbours})
    checkpoint = save_checkpoint(
        run.checkpoint, towers, encoder, tokenizer, template, configs, frozen_stage=None, fusion=fusion
    )
    vectors = compute_item_vectors(towers, torch.from_numpy(text_vec))
    save_vectors(run.vectors_file, vectors, checkpoint, catalog.fingerprint)


def _fill_store(folder: Path, catalog: Catalog, users: list[str], size: WorldSize, chance: np.random.Generator) -> None:
    """The newest events, heard by the service after the log."""
    items = _choices(catalog, len(users), size.store_events, chance)
    times = START_TS + 300 * SECONDS_A_DAY + np.sort(chance.uniform(0, 30 * SECONDS_A_DAY, len(items)))
    order = chance.permutation(len(items))  # a user's events come spread over time
    with Store.open(f"sqlite:///{folder / 'service' / 'store.db'}") as store:
        for start in range(0, len(items), 1_000):
            store.add_events(
                [
                    Event(
                        event_id=f"first-{at}",
                        user_id=users[int(order[at]) // size.store_events],
                        item_id=f"item-{items[order[at]]}",
                        kind="click",
                        time_ts=float(times[at]),
                    )
                    for at in range(start, min(start + 1_000, len(items)))
                ]
            )
