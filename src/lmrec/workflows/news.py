"""The generation that is served beside what its store has heard since: what update and drift both begin with."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from lmrec.artifacts.generation import generation_path, how_far, read_serving
from lmrec.artifacts.run import RunFolder, open_run
from lmrec.artifacts.weighing import read_weighing
from lmrec.data.dataset import Dataset
from lmrec.data.history import HistoryIndex
from lmrec.errors import InputError
from lmrec.evaluation.drift import Drift, measure_drift
from lmrec.feedback.store import Store
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.retrieval.recommender import Recommender, read_users
from lmrec.workflows.merge import Heard, Merged, hear, merge

_SQLITE: Final = "sqlite:///"
_N_SCORED: Final = 500  # histories of each side whose best scores are compared


@dataclass(frozen=True, eq=False)
class News:
    """What is served (`name` of the generation, its folder and recommender), and what came since."""

    name: str
    folder: RunFolder
    served: Recommender
    heard: Heard
    merged: Merged


def store_url(run: Path | str, url: str | None) -> str:
    """The store to read: as given, or where `lmrec serve` keeps it. Raises InputError for a file that is not there."""
    chosen = url or f"{_SQLITE}{Path(run) / 'service' / 'store.db'}"
    if chosen.startswith(_SQLITE) and not Path(chosen.removeprefix(_SQLITE)).exists():
        raise InputError(
            f"there is no store at {chosen}: nothing was heard yet. Put the run behind `lmrec serve {run}`, or name another "
            "store with --store"
        )
    return chosen


def read_news(run: Path | str, url: str | None = None) -> News:
    """Raises InputError, RunFolderError and StoreError where something cannot be read."""
    open_run(run)
    name = read_serving(run)
    folder = open_run(generation_path(run, name))
    served = Recommender.load(folder.path)
    seq, items_version = how_far(folder)
    with Store.open(store_url(run, url)) as store:
        heard = hear(store, seq, items_version)
    users = read_users(folder)
    source = str(folder.read_record().get("source", ""))
    old = Dataset(served.catalog, served.interactions, users, source=source, weighing=read_weighing(folder))
    merged = merge(old, heard)
    log = merged.dataset.interactions
    of_users = merged.dataset.users
    words = served.user_template.words_of(of_users, log.user_ids)
    profiles = served.checkpoint.configs.profile.profiles(of_users, log.user_ids, words)
    dataset = replace(merged.dataset, interactions=replace(log, profiles=profiles))
    return News(name, folder, served, heard, replace(merged, dataset=dataset))


def drift_of(news: News, seed: int = 0) -> Drift:
    """How the new events differ from the log of what is served. Raises InputError where there are none."""
    merged = news.merged
    log, n_items = merged.dataset.interactions, merged.dataset.catalog.n_items
    old, new = (np.bincount(log.item_idx[mask], minlength=n_items) for mask in (~merged.is_new, merged.is_new))
    texts = news.served.checkpoint.template.render_items(merged.dataset.catalog.frame)
    return measure_drift(texts, old, new, merged.old_rows >= 0, _best_scores(news, seed), seed)


def _best_scores(news: News, seed: int) -> tuple[FloatArray, FloatArray]:
    """The served model's best score for histories as they stood before the last old event, and before the last new one."""
    merged = news.merged
    log = merged.dataset.interactions
    index = HistoryIndex.from_interactions(log)
    rng = np.random.default_rng(seed)
    found: list[FloatArray] = []
    for side in (~merged.is_new, merged.is_new):
        events = np.flatnonzero(side)
        # The last event of each user on this side; its history is what was known just before.
        users, places = np.unique(log.user_idx[events][::-1], return_index=True)
        instants = log.time_ts[events][::-1][places]
        chosen = np.sort(rng.permutation(len(users))[:_N_SCORED])
        before = index.before(users[chosen], instants[chosen])
        histories = _known_rows(before, merged.old_rows)
        scores = news.served.scorer.score(histories)
        found.append(scores.max(axis=1, initial=-np.inf) if len(scores) else np.zeros(0, np.float32))
    return found[0], found[1]


def _known_rows(history: Ragged, old_rows: IntArray) -> Ragged:
    """Histories as rows of the served catalog; items that it lacks are passed over."""
    rows = old_rows[np.asarray(history.values, np.int64)]
    known = rows >= 0
    lengths = np.bincount(history.row_of_value[known], minlength=len(history))
    return Ragged(rows[known], np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), history.profile)
