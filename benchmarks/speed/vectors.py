"""A million real MiniLM vectors: real words of real catalogs, encoded by the real model, kept in the cache.

    python -m benchmarks.speed.vectors 1000000 [--seconds 400]

The texts: every title and every sentence of the descriptions and abstracts of Scientific, Beauty and MIND as they are,
and as many compositions as are asked for: a title of one item with a sentence (or title) of
another of the same catalog, no pair twice, cut at 16 tokens. Encoded in bf16 where the processor has it, else in fp32;
what is encoded already is kept, so a stopped run goes on. `text_vectors(n)` reads the first n in a fixed random order.
"""

import argparse
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.speed.worlds import data_folder
from lmrec.artifacts.pretrained import cache_folder, locate_pretrained
from lmrec.models.encoder import EncoderConfig, load_encoder, unique_rows
from lmrec.models.runtime import build_runtime, candidates, encode_batches
from lmrec.text.tokens import load_tokenizer, tokenize_texts

SHARD = 2_000
WIDTH = 384
MAX_TOKENS = 16
_MODEL = "all-MiniLM-L6-v2"
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\s+\|\s+|, ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int)
    parser.add_argument("--seconds", type=float, default=420.0, help="stop after the shard that passes this time")
    options = parser.parse_args()
    began = time.monotonic()
    for done, seconds in encode_shards(options.n):
        print(f"{done:,} vectors, the last {SHARD:,} in {seconds:.1f} s", flush=True)
        if time.monotonic() - began > options.seconds:
            break


def text_vectors(n: int) -> npt.NDArray[np.float32]:
    """(n, 384) unit vectors; fewer where fewer have been encoded and there is no time to encode the rest."""
    shards = [np.load(file) for file in shard_files()[: -(-n // SHARD)]]
    return np.concatenate(shards)[:n].astype(np.float32) if shards else np.zeros((0, WIDTH), np.float32)


def shard_files() -> list[Path]:
    return sorted(folder().glob("[0-9]*.npy"))


def folder() -> Path:
    return cache_folder() / "bench-vectors"


def encode_shards(n: int) -> Iterator[tuple[int, float]]:
    """Encode what is missing of the first n texts; yields how many there are and the last shard's seconds."""
    location = locate_pretrained(_MODEL)
    tokenizer = load_tokenizer(location)
    encoder = load_encoder(location, EncoderConfig(max_tokens=MAX_TOKENS)).eval()
    runtime = build_runtime(candidates("auto")[0], encoder, Path(location))
    texts = composed_texts(n)
    folder().mkdir(parents=True, exist_ok=True)
    for start in range(0, n, SHARD):
        file = folder() / f"{start:09d}.npy"
        if file.exists():
            continue
        began = time.monotonic()
        tokens = tokenize_texts(tokenizer, texts[start : start + SHARD], MAX_TOKENS).ids
        unique, place = unique_rows(tokens)
        vectors = np.zeros((len(tokens), WIDTH), np.float32)
        for rows, found in encode_batches(runtime, tokens, unique, 4096):
            vectors[rows] = found
        vectors = vectors[unique[place]]
        fresh = file.with_suffix(".new")
        with fresh.open("wb") as stream:
            np.save(stream, vectors.astype(np.float16))
        fresh.rename(file)
        yield start + len(vectors), time.monotonic() - began


def composed_texts(n: int) -> list[str]:
    """n different texts, the first n of one random order (of a million, or of n where that is more)."""
    rng = np.random.default_rng(0)
    parts = catalog_parts(data_folder())
    plain = list(dict.fromkeys(text for titles, sentences in parts for text in (*titles, *sentences)))
    share = max(n, 1_000_000) // len(parts) + 1
    composed: dict[str, None] = dict.fromkeys(plain)
    for titles, sentences in parts:
        second = sentences or titles
        pairs = zip(rng.integers(len(titles), size=2 * share), rng.integers(len(second), size=2 * share), strict=True)
        wanted = len(composed) + share
        for one, other in pairs:
            composed[f"{_head(titles[one])}. {second[other]}"] = None
            if len(composed) >= wanted:
                break
    texts = list(composed)
    return [texts[place] for place in rng.permutation(len(texts))[:n]]


def catalog_parts(data: Path) -> list[tuple[list[str], list[str]]]:
    """For each catalog its titles and the sentences that describe its items."""
    scientific = pl.read_parquet(data / "amazon-scientific" / "items.parquet")
    beauty = pl.read_parquet(data / "amazon-beauty" / "items.parquet")
    news = pl.read_csv(data / "mind" / "news.tsv", separator="\t", has_header=False, quote_char=None)
    return [
        (_texts(scientific["title"]), _sentences(scientific["description"])),
        (_texts(beauty["title"]), []),
        (_texts(news.to_series(3)), _sentences(news.to_series(4))),
    ]


def _texts(column: pl.Series) -> list[str]:
    return [text.strip() for text in column.drop_nulls().to_list() if text.strip()]


def _sentences(column: pl.Series) -> list[str]:
    sentences = (part.strip() for text in _texts(column) for part in _SENTENCE_END.split(text))
    return list(dict.fromkeys(part for part in sentences if 15 <= len(part) <= 120))


def _head(title: str) -> str:
    """The first six words: what a thing is called, without its sizes and colours."""
    return " ".join(title.split()[:6]).rstrip(".,;:-")


if __name__ == "__main__":
    main()
