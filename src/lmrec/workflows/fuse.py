"""Find on validation how much item transitions, recent popularity and bare words count beside the towers."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch

from lmrec.data.history import Cases
from lmrec.data.interactions import Interactions
from lmrec.evaluation.evaluator import EvaluationConfig, evaluate
from lmrec.fields import TIMESTAMP, BoolArray
from lmrec.models.collaborative import SECONDS_A_DAY, LogArrays
from lmrec.models.fusion import BORROWED, UNSEARCHED_TRANSITIONS, Fusion, FusionConfig, FusionWeights
from lmrec.models.transitions import ItemTransitions, ItemTransitionsConfig
from lmrec.progress import progress_bar
from lmrec.retrieval.popularity import recent_popularity
from lmrec.retrieval.scorer import Scorer

Change = Mapping[str, float | None]

_PAIRS = (
    ItemTransitionsConfig(),
    ItemTransitionsConfig(window=20, window_decay=0.9),
    ItemTransitionsConfig(window=20, window_decay=0.95, n_last=50, history_decay=0.95),
)  # the last for logs in which order says little: baskets, songs
_MOST_PAIRS = 20_000_000  # that are counted to find out whether a wider window is better
_FIRST_TRANSITIONS = (10.0, 40.0, 160.0)  # at which they are compared
_TRANSITIONS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_LITTLE_CONTENT = (0.1, 0.3, 1.0)
_CONTENT = (2.0, 4.0, 8.0, 16.0)
_POPULARITY = (0.1, 0.2, 0.4, 0.8, 1.6)
_FIRST_POPULARITY = 0.4  # at which half-lives are compared
_HALF_LIVES = (3.0, 7.0, 30.0, 90.0)
_REPEATED = (-1.0, -2.0, -4.0, -8.0, -20.0)
_BORROWED = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_NEW_SHARE = 0.1
_DRAWS = 2
_NEW_ITEMS = 1  # a stream of random numbers of its own


def log_arrays(interactions: Interactions, n_items: int) -> LogArrays:
    return LogArrays(
        user_idx=interactions.user_idx,
        item_idx=interactions.item_idx,
        time_ts=interactions.time_ts,
        weight=interactions.weight,
        n_users=interactions.n_users,
        n_items=n_items,
    )


def search_weights(
    scorer: Scorer,
    train: Interactions,
    cases: Cases,
    config: FusionConfig,
    judging: EvaluationConfig,
    seed: int,
    show: bool,
    trained: bool = True,
) -> tuple[FusionWeights, float | None]:
    """The weights with the best validation metric, one after the other, and that metric; None where nothing validates.

    trained: whether the towers count at all. The counts asked here know the training part alone, as the towers do. What an
    item without events borrows is chosen last, on the same cases: `_worlds`.
    """
    borrowed = BORROWED if config.new_items else 0.0
    start = FusionWeights(towers=float(trained))
    if not len(cases):
        return unsearched(config, trained), None
    grids = list(_grids(config, train.time_kind == TIMESTAMP, judging.exclude_seen, trained))
    if not grids:
        return start, None
    asked = cases.sample(config.search_cases, seed)
    n_items = scorer.bank.n_items

    def measure(weights: FusionWeights, known: Counted, one: Scorer = scorer) -> float:
        return evaluate(one.fused(known.fusion(weights)), asked, n_items, judging).aggregate[judging.metric]

    counted = (
        _best_pairs(train, n_items, measure, start, show) if config.transitions else Counted.of(train, n_items, None)
    )
    if counted.transitions is not None and borrowed:
        lending = Fusion(FusionWeights(transitions=1.0, borrowed=borrowed), counted.transitions)
        counted = replace(counted, loans=scorer.fused(lending).fusion.loans)

    worlds = _worlds(scorer, counted, asked, seed) if config.new_items else []
    n_steps = 1 + sum(map(len, grids)) + len(worlds) * len(_BORROWED)
    with progress_bar("search fusion", show) as bar:
        best = start.model_copy(update={"borrowed": borrowed, "pairs": counted.pairs})
        found, step = measure(best, counted), 1
        for grid in grids:
            if not trained and "content" in grid[0]:
                found = -math.inf  # nothing else can answer who asks with words
            for weights in [best.model_copy(update=change) for change in grid]:
                bar(step, n_steps)
                metric, step = measure(weights, counted), step + 1
                if metric > found:
                    best, found = weights, metric
        if not best.transitions and not best.popularity:
            best = best.model_copy(update={"borrowed": 0.0})
        elif worlds:
            worth = np.zeros(len(_BORROWED))
            for one, known in worlds:
                for place, factor in enumerate(_BORROWED):
                    bar(step, n_steps)
                    worth[place] += measure(best.model_copy(update={"borrowed": factor}), known, one)
                    step += 1
            best = best.model_copy(update={"borrowed": _BORROWED[int(np.argmax(worth))]})
            found = measure(best, counted)
        bar(n_steps, n_steps)
    if not best.towers and not best.any:
        return unsearched(config, trained), None  # somebody has to answer
    return best, float(found)


def unsearched(config: FusionConfig, trained: bool) -> FusionWeights:
    """The weights where nothing validates: moderate ones. Words and popularity count only where there are no towers."""
    return FusionWeights(
        towers=float(trained),
        transitions=UNSEARCHED_TRANSITIONS * config.transitions,
        borrowed=BORROWED * (config.transitions and config.new_items),
        content=_CONTENT[0] * (config.content and not trained),
        popularity=_POPULARITY[0] * (config.popularity and not trained),
    )


def fit_fusion(weights: FusionWeights, interactions: Interactions, n_items: int) -> Fusion:
    """The chosen weights with transitions and popularity learnt from these events."""
    return Counted.of(interactions, n_items, weights.pairs if weights.transitions else None).fusion(weights)


@dataclass(frozen=True, eq=False)
class Counted:
    """What is fused and needs no weights: transitions, and popularity as it is asked for. is_new: (N,) items taken as having
    no events. loans: of the transitions, where they are found already."""

    log: Interactions
    transitions: ItemTransitions | None
    is_new: BoolArray
    loans: sp.csr_matrix | None = None

    @classmethod
    def of(cls, log: Interactions, n_items: int, pairs: ItemTransitionsConfig | None) -> Self:
        """With transitions of these pairs, unless None."""
        is_new = np.bincount(log.item_idx, minlength=n_items) == 0
        return cls(log, None if pairs is None else ItemTransitions(pairs).fit(log_arrays(log, n_items)), is_new)

    @property
    def pairs(self) -> ItemTransitionsConfig:
        return ItemTransitionsConfig() if self.transitions is None else self.transitions.config

    def fusion(self, weights: FusionWeights) -> Fusion:
        popularity, newcomer = None, 0.0
        if weights.popularity:
            half_life_s = math.inf if weights.half_life_days is None else weights.half_life_days * SECONDS_A_DAY
            popularity = np.log1p(recent_popularity(self.log, len(self.is_new), half_life_s))
            newcomer = float(popularity[~self.is_new].mean()) if weights.borrowed and not self.is_new.all() else 0.0
            popularity[self.is_new] = newcomer
        transitions = self.transitions if weights.transitions else None
        return Fusion(weights, transitions, popularity, newcomer, self.loans if transitions else None)


def _best_pairs(
    train: Interactions,
    n_items: int,
    measure: Callable[[FusionWeights, Counted], float],
    start: FusionWeights,
    show: bool,
) -> Counted:
    """The transitions that beside the towers, or alone, do best at one of three weights."""
    tried = [pairs for pairs in _PAIRS if pairs.window * train.n_events <= _MOST_PAIRS] or [_PAIRS[0]]
    if len(tried) == 1:
        return Counted.of(train, n_items, tried[0])
    best, found = None, -math.inf
    with progress_bar("count pairs", show) as bar:
        for place, pairs in enumerate(tried):
            bar(place, len(tried))
            counted = Counted.of(train, n_items, pairs)
            weights = (start.model_copy(update={"transitions": one, "pairs": pairs}) for one in _FIRST_TRANSITIONS)
            metric = max(measure(one, counted) for one in weights)
            if metric > found:
                best, found = counted, metric
        bar(len(tried), len(tried))
    assert best is not None, "a metric is a number"
    return best


def _worlds(scorer: Scorer, counted: Counted, cases: Cases, seed: int) -> list[tuple[Scorer, Counted]]:
    """What borrowing is chosen in: as it is where the cases mostly ask for new items, which known ones do not stand beside;
    otherwise draws in which a share of the known items is new, so that a gain for the new is weighed against what the known
    lose by it."""
    if counted.is_new[cases.relevant.values].mean() > 0.5:
        return [(scorer, counted)]
    rng = np.random.default_rng((seed, _NEW_ITEMS))
    return [_with_new_items(scorer, counted, rng) for _ in range(_DRAWS)]


def _with_new_items(scorer: Scorer, counted: Counted, rng: np.random.Generator) -> tuple[Scorer, Counted]:
    """The scorer and what was counted, as if a share of the items with events had none: words are all that is known of them."""
    known = np.flatnonzero(~counted.is_new)
    is_new = counted.is_new.copy()
    is_new[rng.choice(known, round(_NEW_SHARE * len(known)), replace=False)] = True
    rows = torch.from_numpy(np.flatnonzero(is_new))
    item_vec = scorer.bank.item_vec.clone()
    item_vec[rows] = scorer.bank_rows(scorer.bank.text_vec[rows]).item_vec
    transitions = counted.transitions
    if transitions is not None:
        kept = sp.diags_array((~is_new).astype(np.float32))
        transitions = ItemTransitions.from_matrix((kept @ transitions.matrix @ kept).tocsr(), transitions.config)
        transitions.matrix.eliminate_zeros()
    seen_as_new = replace(counted, transitions=transitions, is_new=is_new, loans=None)
    one = scorer.over(scorer.bank_rows(scorer.bank.text_vec, item_vec))
    if transitions is not None:
        lending = Fusion(FusionWeights(transitions=1.0, borrowed=1.0), transitions)
        seen_as_new = replace(seen_as_new, loans=one.fused(lending).fusion.loans)
    return one, seen_as_new


def _grids(config: FusionConfig, has_times: bool, excludes_seen: bool, trained: bool) -> Iterator[list[Change]]:
    """What is tried, part by part: each entry is laid over the best weights so far."""
    if config.repeats and not excludes_seen:
        yield [{"repeated": constant} for constant in _REPEATED]
    if config.transitions:
        yield [{"transitions": weight} for weight in _TRANSITIONS]
    if config.popularity:
        half_lives = (None, *_HALF_LIVES) if has_times else (None,)
        yield [{"popularity": _FIRST_POPULARITY, "half_life_days": days} for days in half_lives]
        yield [{"popularity": weight} for weight in _POPULARITY if weight != _FIRST_POPULARITY]
    if config.content:
        yield [{"content": weight} for weight in (_CONTENT if trained else (*_LITTLE_CONTENT, *_CONTENT))]
