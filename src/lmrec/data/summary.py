"""The data in numbers, for a person: what came in, how sparse it is, what is cold, what was set aside."""

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from lmrec.data.catalog import Catalog
from lmrec.data.dataset import Dataset
from lmrec.data.proof import show_time
from lmrec.data.split import Split
from lmrec.fields import IntArray, TimeKind


class DataSummary(BaseModel):
    """Counts and shares (0 to 1). The cold shares are about the test part of a split, None without one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_users: int
    n_items: int
    n_events: int
    density: float  # distinct (user, item) pairs over all possible ones
    history_median: float  # events per user that has any
    history_p90: float
    history_max: int
    items_without_events: float
    time_kind: TimeKind
    first_ts: float | None
    last_ts: float | None
    tie_share: float
    blank_texts: float  # items without a single word
    median_words: float
    n_quarantined: dict[str, int]  # by reason, the commonest first
    n_train: int | None = None
    n_validation_cases: int | None = None
    n_test_cases: int | None = None
    # Shares of the test's relevant items, as often as asked, and of its users, without an event in training or validation.
    cold_items: float | None = None
    cold_users: float | None = None

    def rows(self) -> list[tuple[str, str]]:
        """(label, value) for printing, in reading order."""
        rows = [
            ("users", f"{self.n_users:,}"),
            ("items", f"{self.n_items:,} ({self.items_without_events:.1%} without events)"),
            ("events", f"{self.n_events:,}"),
            ("density", f"{self.density:.4%}"),
            ("events per user", f"median {self.history_median:g}, p90 {self.history_p90:g}, max {self.history_max:,}"),
            ("time", self._time_range()),
            ("equal times", f"{self.tie_share:.1%} of events share user and time with another"),
            ("item texts", f"median {self.median_words:g} words, {self.blank_texts:.1%} blank"),
            ("set aside", _show_counts(self.n_quarantined)),
        ]
        if self.n_train is not None:
            rows.append(("split", f"{self.n_train:,} training events"))
            rows.append(("questions", f"validation {self.n_validation_cases:,}, test {self.n_test_cases:,}"))
        if self.cold_items is not None and self.cold_users is not None:
            rows.append(("cold in test", f"{self.cold_items:.1%} of relevant items, {self.cold_users:.1%} of users"))
        return rows

    def _time_range(self) -> str:
        if self.first_ts is None or self.last_ts is None:
            return "no events"
        first, last = show_time(self.first_ts, self.time_kind), show_time(self.last_ts, self.time_kind)
        return f"{first} to {last} UTC" if self.time_kind == "timestamp" else f"positions {first} to {last}"


def summarize(dataset: Dataset, split: Split | None = None) -> DataSummary:
    """Count what is in a dataset and, where it has been split, how cold the test part is."""
    events = dataset.interactions
    per_user = np.bincount(events.user_idx, minlength=events.n_users)
    active = per_user[per_user > 0] if len(events) else np.zeros(1, np.int64)
    pairs = pl.Series(events.user_idx.astype(np.int64) * dataset.catalog.n_items + events.item_idx).n_unique()
    words = _count_words(dataset.catalog)
    reasons = dataset.quarantine["reason"].value_counts(sort=True)
    return DataSummary(
        n_users=events.n_users,
        n_items=dataset.catalog.n_items,
        n_events=len(events),
        density=pairs / max(1, events.n_users * dataset.catalog.n_items),
        history_median=float(np.median(active)),
        history_p90=float(np.quantile(active, 0.9)),
        history_max=int(active.max()),
        items_without_events=1 - len(np.unique(events.item_idx)) / max(1, dataset.catalog.n_items),
        time_kind=events.time_kind,
        first_ts=float(events.time_ts[0]) if len(events) else None,
        last_ts=float(events.time_ts[-1]) if len(events) else None,
        tie_share=events.tie_share,
        blank_texts=float((words == 0).mean()) if len(words) else 0.0,
        median_words=float(np.median(words)) if len(words) else 0.0,
        n_quarantined=dict(reasons.iter_rows()),
        n_train=len(split.train) if split else None,
        n_validation_cases=len(split.validation) if split else None,
        n_test_cases=len(split.test) if split else None,
        cold_items=_share_not_in(split.test.relevant.values, split.train_and_validation.item_idx) if split else None,
        cold_users=_share_not_in(np.unique(split.test.user_idx), split.train_and_validation.user_idx)
        if split
        else None,
    )


def _share_not_in(asked: IntArray, trained: IntArray) -> float | None:
    return float(1 - np.isin(asked, trained).mean()) if len(asked) else None


def _count_words(catalog: Catalog) -> IntArray:
    """(N,) words per item, over all text columns."""
    if not catalog.text_columns:
        return np.zeros(catalog.n_items, np.int64)
    texts = pl.concat_str(catalog.text_columns, separator=" ", ignore_nulls=True)
    return catalog.frame.select(texts.str.count_matches(r"\S+")).to_series().to_numpy()


def _show_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "nothing"
