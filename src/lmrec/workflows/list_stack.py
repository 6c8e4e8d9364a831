"""Learn from lists that were shown how much the model's score counts beside how items fared so far; kept with the run.

The weights are of the lists of validation, by the model as it was before it learnt from them; what is counted goes to the
end of the log. Lists of the test part choose nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from lmrec.artifacts.list_stack import ListStack, save_list_stack
from lmrec.data.history import HistoryIndex
from lmrec.data.impressions import Impressions
from lmrec.data.interactions import Interactions
from lmrec.data.split import Split
from lmrec.evaluation.evaluator import Scorer
from lmrec.evaluation.impressions import CatalogScorer, ListScorer, ShownLists, mean_auc
from lmrec.fields import TIMESTAMP, FloatArray, ItemId, Ragged
from lmrec.models.click_rates import ClickRate, ShownLog
from lmrec.models.live_stack import LiveStack, LoggedCounts, counts_at_end, fit_live_stack

AnyListScorer = TypeVar("AnyListScorer", bound=ListScorer)


@dataclass(frozen=True, eq=False)
class Parts:
    """The lists of each part of the split, and everything that was shown, for counting live. rate: the share of shows before
    validation that were clicked."""

    train: ShownLists
    validation: ShownLists
    test: ShownLists
    shown: ShownLog
    rate: float
    n_left_out: int


@dataclass(frozen=True, eq=False)
class StackedLists:
    """A stack as a scorer of lists of the past. own: scores of the model as it hears it; None for a stack without it."""

    name: str
    stack: LiveStack
    counts: LoggedCounts
    own: ListScorer | None = None

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        own = None if self.own is None else self.own.score_shown(history, candidates, time_ts)
        return self.stack.score(own, self.counts.before(candidates, time_ts))


def list_cuts(split: Split, interactions: Interactions) -> tuple[float, float] | None:
    """(first instant of validation, first of test), the latter infinity where everything is learnt in the end; None where the
    split is none in time."""
    if split.cut_ts is not None:
        return split.cut_ts
    if split.kind == "none" and interactions.time_kind == TIMESTAMP and len(split.validation):
        return float(split.validation.instants.min()), np.inf
    return None


def split_lists(
    impressions: Impressions, interactions: Interactions, cut_ts: tuple[float, float], n_items: int
) -> Parts:
    """Lists before the first cut, between both, and from the second on; those that no order can be wrong for left out."""
    index = HistoryIndex.from_interactions(interactions)
    usable = impressions.take(np.flatnonzero(impressions.can_be_judged))

    def ask(first_ts: float, end_ts: float) -> ShownLists:
        found = usable.between(first_ts, end_ts)
        before = index.before(found.user_idx, found.time_ts)
        return ShownLists(found.user_idx, found.time_ts, before, found.candidates, found.clicked)

    validation_ts, test_ts = cut_ts
    candidates = impressions.candidates
    when_ts = impressions.time_ts[candidates.row_of_value]
    shown = ShownLog(candidates.values, when_ts, impressions.clicked, n_items)
    return Parts(
        train=ask(-np.inf, validation_ts),
        validation=ask(validation_ts, test_ts),
        test=ask(test_ts, np.inf),
        shown=shown,
        rate=rate_before(shown, validation_ts),
        n_left_out=len(impressions) - len(usable),
    )


def keep_list_stack(
    folder: Path,
    before: Mapping[str, Scorer],
    impressions: Impressions,
    interactions: Interactions,
    split: Split,
    item_ids: Sequence[ItemId],
) -> None:
    """Save what `fit_list_stack` finds in a run's folder for it; nothing where it finds nothing."""
    stack = fit_list_stack(before, impressions, interactions, split, item_ids)
    if stack is not None:
        save_list_stack(folder, stack, item_ids)


def fit_list_stack(
    before: Mapping[str, Scorer],
    impressions: Impressions,
    interactions: Interactions,
    split: Split,
    item_ids: Sequence[ItemId],
) -> ListStack | None:
    """None where no list of validation can be judged, or the split has no cut in time.

    before: the run's model by the names of `OWN_PARTS`, as it was before it learnt from validation; the one is heard that
    orders validation lists best. item_ids: (N,) of the catalog.
    """
    cuts, n_items = list_cuts(split, interactions), len(item_ids)
    if cuts is None:
        return None
    parts = split_lists(impressions, interactions, cuts, n_items)
    if not len(parts.validation):
        return None
    own = best_scorer([CatalogScorer(name, scorer, n_items) for name, scorer in before.items()], parts)
    stack = stack_lists(own, parts, best_click_rate(parts))
    counts = counts_at_end(parts.shown, item_ids, stack.click_rate.half_life_hours)
    return ListStack(stack, counts.items, float(parts.shown.time_ts.max()))


def best_click_rate(parts: Parts) -> ClickRate:
    """The way to count it that orders validation lists best."""
    return best_scorer([one.fit(parts.shown, parts.rate) for one in ClickRate.candidates()], parts)


def best_scorer(scorers: Sequence[AnyListScorer], parts: Parts) -> AnyListScorer:
    """The one that orders validation lists best, the first of equals."""
    return max(scorers, key=lambda one: mean_auc(one, parts.validation))


def rate_before(shown: ShownLog, first_ts: float) -> float:
    """The share of shows before an instant that were clicked, 0 where there were none."""
    earlier = shown.before(first_ts).clicked
    return float(earlier.mean()) if len(earlier) else 0.0


def stack_lists(own: ListScorer | None, parts: Parts, counted: ClickRate) -> LiveStack:
    """Weights from the validation lists. own: the model, under a name of `OWN_PARTS`; None for a stack without it."""
    lists = parts.validation
    scores = {} if own is None else {own.name: own.score_shown(lists.history, lists.candidates, lists.time_ts)}
    fared = LoggedCounts(parts.shown, counted.config.half_life_hours).before(lists.candidates, lists.time_ts)
    return fit_live_stack(scores, fared, counted.config, parts.rate, lists.candidates, lists.clicked)
