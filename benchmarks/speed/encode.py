"""Encoding: texts to vectors, end to end, against sentence-transformers in fp32 on the same texts and threads.

Both start from strings and end with unit vectors, both hold the model in memory already. Short texts are titles and their
compositions of at most 16 tokens; long ones a title with the description of another item, cut at 256 tokens. The runtime
that is taken by itself reads 100,000 and 20,000 of them, once; sentence-transformers a tenth or less, which is as many
batches of 32 a second as all would be. OpenVINO reads what sentence-transformers reads. They take turns, and each is
given its best of two, because the machine is not always quiet; the long reading of ours has one turn. Ours may be off by
what the gate allows (1 - cosine, of every text). Also one text alone, as a new item or a question asks for it: by
`Recommender.encode_texts` of a run fitted for this, whose recipe names the runtime. And how near all this comes to what
the processor can multiply. The runtimes that are taken by themselves are measured, and OpenVINO's where it is installed.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import nn

from benchmarks.speed.figure import Figure
from benchmarks.speed.vectors import composed_texts
from benchmarks.speed.worlds import data_folder
from lmrec.artifacts.pretrained import locate_pretrained
from lmrec.cores import free_cores
from lmrec.data.sources.synthetic import planted_world
from lmrec.models.encoder import EncoderConfig, RuntimeName, TextEncoder, load_encoder
from lmrec.models.precision import cpu_computes_bf16
from lmrec.models.runtime import (
    FAITHFUL,
    EncoderRuntime,
    answering_candidates,
    build_runtime,
    candidates,
    encode_unique,
)
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.words import WordEncoder
from lmrec.text.tokens import load_tokenizer, tokenize_texts
from lmrec.workflows.train import fit_run

_MODEL = "all-MiniLM-L6-v2"
_BATCH_TOKENS = 4096
_LENGTHS = {"short": 16, "long": 256}  # tokens that a text is cut at
_ONE_MS = 5.0  # the limit of issue 6 for one text alone
_ASKED, _ASKED_SMALL = 200, 40
_WHOLE = {"short": 100_000, "long": 20_000}  # texts that the runtime taken by itself reads, as issue 6 asks
_PART = {"short": 10_000, "long": 1_000}  # the first of them, that all read
_SMALL = {"short": 400, "long": 10}

_PEER = "sentence-transformers fp32"
_ASKED_RATIO = 4.0  # of issue 6

Vectors: TypeAlias = npt.NDArray[np.float32]
Work: TypeAlias = Callable[[list[str]], Vectors]


def main(small: bool) -> list[Figure]:
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(free_cores())
    location = Path(locate_pretrained(_MODEL))
    tokenizer, encoder = load_tokenizer(location), load_encoder(location, EncoderConfig()).eval()
    peer = SentenceTransformer(str(location), device="cpu")
    peer_encodes: Work = partial(peer.encode, normalize_embeddings=True)
    names: list[RuntimeName] = [candidates("auto")[0]]
    if find_spec("openvino") and cpu_computes_bf16():
        names.append("openvino-bf16")
    asked = composed_texts(_ASKED_SMALL if small else _ASKED)
    peer_ms = _median_ms(peer_encodes, asked)
    figures = []
    with tempfile.TemporaryDirectory() as exported:
        served = _fitted(Path(exported))
        for name in names:
            runtime = build_runtime(name, encoder, Path(exported))
            for kind, make in (("short", composed_texts), ("long", _long)):
                part = _SMALL[kind] if small else _PART[kind]
                texts = make(part if small or name != names[0] else _WHOLE[kind])
                peer.max_seq_length = max_tokens = _LENGTHS[kind]
                (own_s, own), (peer_s, found) = _take_turns(
                    partial(encode, runtime, tokenizer, max_tokens), texts, peer_encodes, texts[:part]
                )
                off = float((1.0 - (own[:part] * found).sum(axis=1)).max())
                assert off < FAITHFUL, f"1 - cosine to fp32 is {off:.1e}, and less than {FAITHFUL:.0e} is asked"
                note = f"{len(texts):,} of at most {max_tokens} tokens, {name}, 1 - cosine {off:.1e}"
                note += f"; {_PEER}: {part:,} of them" if part < len(texts) else ""
                rates = len(texts) / own_s, part / peer_s
                figures.append(Figure(f"encode, {kind} texts", *rates, "texts/s", _PEER, note))
                if kind == "short":
                    figures.append(_of_the_limit(runtime, encoder, tokenizer, texts, own_s, rates[1]))
        for name in (answering_candidates("auto")[0], *names):
            own_ms = _median_ms(_answering(served, name), asked)
            note = f"median of {len(asked)} texts by Recommender.encode_texts, {name}"
            figures.append(Figure("one text alone", own_ms, _ONE_MS, "ms", "limit", note))
            figures.append(Figure("one text alone", own_ms, peer_ms, "ms", _PEER, note))
    return figures


def _of_the_limit(
    runtime: EncoderRuntime, encoder: TextEncoder, tokenizer: Any, texts: list[str], own_s: float, peer_rate: float
) -> Figure:
    """Matrix products a second while encoding, against the same products alone: what no runtime of that precision can pass."""
    weights = [module for module in encoder.backbone.modules() if isinstance(module, nn.Linear)]
    n_tokens = int(tokenize_texts(tokenizer, texts, _LENGTHS["short"]).ids.lengths.sum())
    work = 2e-9 * n_tokens * sum(module.weight.numel() for module in weights)  # GFLOP; attention and the rest left out
    limit = matrix_rate(weights, torch.bfloat16 if "bf16" in runtime.name else torch.float32)
    asked = _ASKED_RATIO * peer_rate * work / len(texts)
    note = f"{runtime.name}; {_ASKED_RATIO:g} times {_PEER} would be {asked:,.0f} GFLOP/s"
    return Figure("encode, of the processor's limit", work / own_s, limit, "GFLOP/s", "its matrix products alone", note)


@torch.inference_mode()
def matrix_rate(layers: Sequence[nn.Linear], precision: torch.dtype) -> float:
    """GFLOP/s of these layers over 4,096 rows each, with all threads; the best of five."""
    jobs = [
        (copy.deepcopy(layer).to(precision), torch.randn(4096, layer.in_features).to(precision)) for layer in layers
    ]
    work = 2e-9 * 4096 * sum(layer.weight.numel() for layer in layers)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        for layer, rows in jobs:
            layer(rows)
        seconds.append(time.perf_counter() - began)
    return work / min(seconds)


def encode(runtime: EncoderRuntime, tokenizer: Any, max_tokens: int, texts: list[str]) -> Vectors:
    """(N, D) as a fit encodes a catalog, without the cache on the disk."""
    return encode_unique(runtime, tokenize_texts(tokenizer, texts, max_tokens).ids, _BATCH_TOKENS)


def _fitted(folder: Path) -> Recommender:
    """A small run of the language model, not tuned: what counts is that it answers as any run does."""
    world = planted_world(n_users=60, n_items=64, n_events_per_user=12)
    choices = ["training.frozen_epochs=1", "training.tuned_epochs=0", "evaluation.n_bootstrap=20"]
    choices += [f"encoder.max_tokens={_LENGTHS['short']}", 'baselines.names=["popularity"]']
    events = pl.DataFrame(
        {
            "user_id": [world.interactions.user_ids[user] for user in world.interactions.user_idx],
            "item_id": [world.catalog.ids[item] for item in world.interactions.item_idx],
            "timestamp": world.interactions.time_ts.astype(int),
        }
    )
    fit_run(world.catalog.frame, events, out=folder / "run", overrides=choices, show=False)
    return Recommender.load(folder / "run")


def _answering(recommender: Recommender, name: RuntimeName) -> Work:
    """How the run encodes words where its recipe names this runtime."""
    checkpoint = recommender.checkpoint
    config = checkpoint.configs.encoder.model_copy(update={"runtime": name})
    named = replace(checkpoint, configs=replace(checkpoint.configs, encoder=config))
    answering = replace(recommender, words=WordEncoder(named, recommender.catalog))
    taken = answering.words.runtime.name
    assert taken == name, f"{name} was refused, and {taken} runs"
    return lambda texts: answering.encode_texts(texts).numpy()


def _take_turns(ours: Work, texts: list[str], theirs: Work, part: list[str]) -> list[tuple[float, Vectors]]:
    """Each one's least seconds of two, and its vectors; where ours takes minutes it has one turn."""
    own, peer = [_timed(ours, texts)], [_timed(theirs, part)]
    if len(texts) == len(part):
        own.append(_timed(ours, texts))
    peer.append(_timed(theirs, part))
    return [min(turns, key=lambda one: one[0]) for turns in (own, peer)]


def _median_ms(work: Work, texts: list[str]) -> float:
    return 1e3 * statistics.median(_timed(work, [text])[0] for text in texts)


def _timed(work: Work, texts: list[str]) -> tuple[float, Vectors]:
    began = time.perf_counter()
    result = work(texts)
    return time.perf_counter() - began, result


def _long(n: int) -> list[str]:
    items = pl.read_parquet(data_folder() / "amazon-scientific" / "items.parquet").drop_nulls(["title", "description"])
    titles, described = items["title"].to_list(), [text for text in items["description"].to_list() if len(text) > 600]
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(titles) * len(described), n, replace=False)  # so that no two are the same
    return [f"{titles[at // len(described)]}. {described[at % len(described)]}" for at in drawn.tolist()]
