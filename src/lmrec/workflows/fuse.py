"""Find on validation how much neighbours, factors, recent popularity and bare words count beside the towers."""

import math
from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
import torch

from lmrec.data.history import Cases, HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.data.split import Split
from lmrec.evaluation.evaluator import EvaluationConfig, evaluate
from lmrec.fields import TIMESTAMP, Ragged
from lmrec.models.bm25 import BM25KNNConfig
from lmrec.models.collaborative import HALF_LIVES_DAYS, ALSConfig
from lmrec.models.ease import EASEConfig
from lmrec.models.fusion import (
    BORROWED,
    COLLABORATIVE,
    UNSEARCHED_TRANSITIONS,
    Collaborative,
    FusionConfig,
    FusionWeights,
    Settings,
    asking_all,
    fit_field,
)
from lmrec.models.stacking import fit_stack
from lmrec.models.transitions import ItemTransitionsConfig
from lmrec.progress import Progress, progress_bar
from lmrec.recipe import Recipe
from lmrec.retrieval.ensemble import answering
from lmrec.retrieval.scorer import Scorer
from lmrec.workflows.counting import Counted
from lmrec.workflows.pools import pool_scores

Change = Mapping[str, object]

# What is tried of each, for whoever is to try no less.
PAIRS = (
    ItemTransitionsConfig(),
    ItemTransitionsConfig(window=20, window_decay=0.9),
    ItemTransitionsConfig(window=20, window_decay=0.95, n_last=50, history_decay=0.95),
)  # the last for logs in which order says little: baskets, songs
_MOST_PAIRS = 20_000_000  # that are counted to find out whether a wider window is better
_FIRST_TRANSITIONS = (10.0, 40.0, 160.0)  # at which they are compared
_TRANSITIONS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_N_LAST = (3, 8, 100)  # how much of a history is asked
FITS: Mapping[Collaborative, tuple[Settings, ...]] = {
    "ease": tuple(
        EASEConfig(regularization=strength, n_last=n_last, n_neighbours=200)
        for strength in (50.0, 200.0, 800.0)
        for n_last in _N_LAST
    ),
    "bm25_knn": tuple(
        BM25KNNConfig(n_neighbours=200, b=b, max_history=n_last) for b in (0.25, 0.75) for n_last in _N_LAST
    ),
    "als": tuple(
        ALSConfig(n_factors=n, regularization=10.0, alpha=alpha, max_history=n_last)
        for n in (16, 64)
        for alpha in (1.0, 10.0)
        for n_last in _N_LAST
    ),
}
# What the best item of a history gets by them, in units of the towers' score.
_FIRST_BEST = (2.0, 8.0, 32.0)
_BEST = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_UNSEARCHED_BEST = 2.0
_LITTLE_CONTENT = (0.1, 0.3, 1.0)
_CONTENT = (2.0, 4.0, 8.0, 16.0)
_LITTLE_POPULARITY = 0.001  # decides where nothing else is said
_POPULARITY = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2)
_FIRST_POPULARITY = (0.4, 51.2)  # half-lives are compared beside the rest, and where the rest decides among equals
# Of equals the first: where nothing comes again, items of the history stay below whatever is weighed after this.
_LESS_AGAIN: list[Change] = [{"repeated": one} for one in (-200.0, -50.0, -20.0, -8.0, -4.0, -2.0, -1.0, 0.0)]
_MORE_AGAIN: list[Change] = [{"repeated": one} for one in (1.0, 2.0, 4.0, 8.0, 20.0, 50.0)]
_BORROWED = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_NEWCOMER = (0.0, 0.5, 1.0, 2.0, 4.0)
_AGAIN = (0.0, 0.5, 1.0, 2.0)  # times what was found first, where several parts know the same
_NEW_SHARE = 0.1
_DRAWS = 2
_NEW_ITEMS = 1  # a stream of random numbers of its own
_UNIT_CASES = 200


def weights_by_recipe(scorer: Scorer, split: Split, recipe: Recipe, show: bool) -> tuple[FusionWeights, float | None]:
    """`search_weights` as the recipe asks. scorer: towers that learnt from the training part alone."""
    seed = recipe.training.seed
    return search_weights(
        scorer, split.train, split.validation, recipe.fusion, recipe.evaluation, seed, show, recipe.trains
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

    scorer: as it is without anything found here; popularity beside which its towers have learnt counts from the start.
    trained: whether the towers count at all. The counts asked here know the training part alone, as the towers do. What an
    item without events borrows is chosen last, on the same cases: `worlds_of`.
    """
    if not len(cases):
        return unsearched(config, trained, train, scorer), None
    asked = cases.sample(config.search_cases, seed)
    search = _Search(scorer, train, asked, config, judging, seed, trained)
    if not search.n_steps:
        return search.best, None
    with progress_bar("search fusion", show) as bar:
        search.run(bar)
    if not search.best.towers and not search.best.any:
        return unsearched(config, trained, train, scorer), None  # somebody has to answer
    return search.best, float(search.found)


def unsearched(config: FusionConfig, trained: bool, train: Interactions, scorer: Scorer) -> FusionWeights:
    """The weights where nothing validates: moderate ones. Words count only where there are no towers, popularity there too and
    where the towers have learnt beside it."""
    known = scorer.fusion.weights
    weights = FusionWeights(
        towers=float(trained),
        transitions=UNSEARCHED_TRANSITIONS * config.transitions,
        borrowed=BORROWED * (bool(config.collaborative) and config.new_items),
        newcomer=float(config.new_items),
        content=_CONTENT[0] * (config.content and not trained),
        popularity=known.popularity or _POPULARITY[0] * (config.popularity and not trained),
        half_life_days=known.half_life_days,
    )
    counted = Counted.of(train, scorer.bank.n_items)
    users = np.unique(train.user_idx)[:_UNIT_CASES]
    histories = HistoryIndex.from_interactions(train).all(users)
    for kind in _searched_kinds(config):
        unit = _unit(counted.having(kind, weights.fit_of(kind)), kind, histories)
        weights = weights.model_copy(update={kind: _UNSEARCHED_BEST / unit})
    return weights


class _Search:
    """best: the weights so far; found: their metric; counted: what they weigh."""

    def __init__(
        self,
        scorer: Scorer,
        train: Interactions,
        asked: Cases,
        config: FusionConfig,
        judging: EvaluationConfig,
        seed: int,
        trained: bool,
    ) -> None:
        self.scorer, self.train, self.asked = scorer.remembering(), train, asked
        self.config, self.judging, self.seed, self.trained = config, judging, seed, trained
        known = scorer.fusion.weights
        self.best = FusionWeights(
            towers=float(trained), popularity=known.popularity, half_life_days=known.half_life_days
        )
        self.found = -math.inf
        self.counted = Counted.of(train, scorer.bank.n_items)
        self._bar: Progress = lambda done, total: None
        self._step = 0
        self.has_times = train.time_kind == TIMESTAMP

    @property
    def n_steps(self) -> int:
        """How much there is to try, about; 0 where nothing is asked for."""
        kinds = _searched_kinds(self.config)
        return (
            sum(map(len, (*self._first_grids, *self._last_grids, self._again)))
            + sum(len(_FIRST_BEST) * len(FITS[kind]) + len(_BEST) for kind in kinds)
            + (len(self._parts) * len(_AGAIN) if kinds else 0)
        )

    def run(self, bar: Progress) -> None:
        self._bar = bar
        new_items = self.config.new_items
        # Where new items are what is asked for, what is borrowed decides what the rest is worth.
        borrowed, newcomer = BORROWED, 1.0
        if _asks_for_new(self.counted, self.asked):
            borrowed, newcomer = _BORROWED[-1], _NEWCOMER[-1]
        self.best = self.best.model_copy(update={"borrowed": borrowed * new_items, "newcomer": newcomer * new_items})
        if self.config.transitions:
            self.counted, pairs = self._best_pairs()
            self.best = self.best.model_copy(update={"pairs": pairs})
        self.found = self.measure(self.best)
        for grid in self._first_grids:
            self._try(grid)
        for kind in _searched_kinds(self.config):
            self._try_kind(kind)
        for grid in self._last_grids:
            if grid[0].keys() == {"half_life_days"} and not self.best.popularity:
                continue  # of a popularity that counts nothing it does not matter how fast it fades
            if not self.trained and ("content" in grid[0] or "half_life_days" in grid[0]):
                self.found = -math.inf  # nothing else can answer who asks with words, or of whom nothing is known
            self._try(grid)
        if _searched_kinds(self.config):
            self._try_again()
        if self._repeats:
            self._try(self._again)  # it was weighed beside the towers alone, and all that came to them adds to it, too
        if self.config.method == "reciprocal_rank":
            self._choose_ranked()
        else:
            if self.config.method == "learnt":
                self._learn()
            self._choose_borrowed()
        bar(1, 1)

    def measure(self, weights: FusionWeights, known: Counted | None = None, one: Scorer | None = None) -> float:
        counted = known or self.counted
        fused = self._fused(weights, counted, one)
        self._bar(min(self._step, self.n_steps), self.n_steps + 1)
        self._step += 1
        return evaluate(answering(fused), self.asked, counted.n_items, self.judging).aggregate[self.judging.metric]

    def _fused(self, weights: FusionWeights, counted: Counted | None = None, one: Scorer | None = None) -> Scorer:
        counted = counted or self.counted
        fused = (one or self.scorer).fused(counted.fusion(weights))
        counted.remember(fused.fusion)
        return fused

    def _try(self, grid: list[Change]) -> None:
        for weights in [self.best.model_copy(update=change) for change in grid]:
            metric = self.measure(weights)
            if metric > self.found:
                self.best, self.found = weights, metric

    def _best_pairs(self) -> tuple[Counted, ItemTransitionsConfig]:
        """The transitions that beside the towers, or alone, do best at one of three weights."""
        tried = [pairs for pairs in PAIRS if pairs.window * self.train.n_events <= _MOST_PAIRS] or [PAIRS[0]]
        made = ((self.counted.having("transitions", pairs), pairs) for pairs in tried)
        if len(tried) == 1:
            return next(made)
        best, found = None, -math.inf
        for counted, pairs in made:
            weights = (self.best.model_copy(update={"transitions": one, "pairs": pairs}) for one in _FIRST_TRANSITIONS)
            metric = max(self.measure(one, counted) for one in weights)
            if metric > found:
                best, found = (counted, pairs), metric
        assert best is not None, "a metric is a number"
        return best

    def _try_kind(self, kind: Collaborative) -> None:
        """The way of counting that beside the best so far does best at one of three weights, then more weights of it."""
        best: tuple[Counted, Settings, float] | None = None
        found = -math.inf
        for settings, counted in self._ways(kind):
            unit = _unit(counted, kind, self.asked.history)
            changes = ({fit_field(kind): settings, kind: worth / unit} for worth in _FIRST_BEST)
            metric = max(self.measure(self.best.model_copy(update=change), counted) for change in changes)
            if metric > found:
                best, found = (counted, settings, unit), metric
        assert best is not None, "a metric is a number"
        self.counted, settings, unit = best
        self.best = self.best.model_copy(update={fit_field(kind): settings})  # others may weigh it again
        self._try([{fit_field(kind): settings, kind: worth / unit} for worth in _BEST])

    def _ways(self, kind: Collaborative) -> Iterator[tuple[Settings, Counted]]:
        """Ways that differ in how much of a history is asked share a fit."""
        fitted: tuple[Settings, Counted] | None = None
        for settings in FITS[kind]:
            whole = asking_all(settings)
            if fitted is None or fitted[0] != whole:
                fitted = whole, self.counted.having(kind, whole)
            yield settings, fitted[1].asked_as(kind, settings)

    def _try_again(self) -> None:
        """Parts that know the same were weighed one after the other: each once more, beside all the others."""
        for part in self._parts:
            weight = float(getattr(self.best, part))
            changes: list[Change] = [
                {part: weight * times} for times in _AGAIN if times or self.trained or part in COLLABORATIVE
            ]
            self._try(changes if weight else [])

    @property
    def _parts(self) -> list[str]:
        asked = [part for part in ("popularity", "content") if getattr(self.config, part)]
        return [*self.config.collaborative, *asked]

    @property
    def _first_grids(self) -> list[list[Change]]:
        """What is tried before the kinds that are fitted in several ways: each entry is laid over the best weights so far."""
        grids: list[list[Change]] = []
        if self._repeats:
            grids.append(self._again)
        if self.config.transitions:
            grids.append([{"transitions": weight} for weight in _TRANSITIONS])
        return grids

    @property
    def _repeats(self) -> bool:
        """Whether items of the history are in the lists, and may lose or gain something."""
        return self.config.repeats and not self.judging.exclude_seen

    @cached_property
    def _come_back(self) -> bool:
        """Whether an item of a history is ever right: in a log where nothing comes again none is."""
        history, right = self.asked.history, self.asked.relevant
        return any(bool(np.isin(right[at], history[at]).any()) for at in range(len(self.asked)))

    @property
    def _again(self) -> list[Change]:
        if not self._repeats:
            return []
        return [*_LESS_AGAIN, *(_MORE_AGAIN if self._come_back else [])]

    @property
    def _last_grids(self) -> list[list[Change]]:
        """What is tried after them."""
        little = () if self.trained else (_LITTLE_POPULARITY,)
        grids: list[list[Change]] = []
        if self.config.popularity:
            half_lives = (None, *HALF_LIVES_DAYS) if self.has_times else (None,)
            learnt = (
                self.scorer.fusion.weights.popularity
            )  # beside which the towers have learnt: none of it may be better still
            first = (learnt, _FIRST_POPULARITY[-1]) if learnt else _FIRST_POPULARITY
            none = (0.0,) if learnt and self.trained else ()
            grids.append([{"popularity": one, "half_life_days": days} for one in first for days in half_lives])
            grids.append([{"popularity": one} for one in (*none, *little, *_POPULARITY) if one not in first])
            # Once more, for the more popularity counts the more it matters how fast it fades.
            grids += [[{"half_life_days": days} for days in half_lives]] if self.has_times else []
        if self.config.content:
            grids.append([{"content": one} for one in (_CONTENT if self.trained else (*_LITTLE_CONTENT, *_CONTENT))])
        return grids

    @property
    def _joined(self) -> list[str]:
        """All parts that could count, towers too."""
        return [*(["towers"] if self.trained else []), *self._parts, *(["repeated"] if self._repeats else [])]

    def _learn(self) -> None:
        """Other weights for all that is asked for, counted as it was when tried: those under which what was chosen is most
        likely among what any part puts on top. None is below 0."""
        # Which way the history counts the trials have found; how much is learnt.
        again = 1.0 if self.best.repeated > 0 else -1.0
        sign = {part: again if part == "repeated" else 1.0 for part in self._joined}
        alone = [self._fused(self.best.of_parts({part: one})) for part, one in sign.items()]
        parts, pools, chosen = pool_scores(alone, self.asked, self.judging.exclude_seen)
        stack = fit_stack(list(sign), parts, pools, chosen, nonnegative=True)
        found = {
            part: sign[part] * weight / scale
            for part, weight, scale in zip(stack.names, stack.weights, stack.scale, strict=True)
        }
        least = {} if self.trained else {"content": _LITTLE_CONTENT[0], "popularity": _LITTLE_POPULARITY}
        found.update({part: max(found[part], least[part]) for part in least if part in found})
        self.best = self.best.of_parts(found)
        self.found = self.measure(self.best)

    def _choose_ranked(self) -> None:
        """All parts alike, by their ranks; one after the other is left out where validation is better off without it."""
        parts = [part for part in self._joined if part != "repeated"]
        ranked = self.best.of_parts(dict.fromkeys(parts, 1.0)).model_copy(update={"ranks": True})
        self.best, self.found = ranked, self.measure(ranked)
        for part in parts:
            self._try([{part: 0.0}] if len(self.best.parts) > 1 else [])

    def _choose_borrowed(self) -> None:
        if not self.counted.fusion(self.best).neighbours and not self.best.popularity:
            self.best = self.best.model_copy(update={"borrowed": 0.0, "newcomer": 0.0})
            return
        worlds = worlds_of(self.scorer, self.counted, self.asked, self.seed) if self.config.new_items else []
        if not worlds:
            return
        for name, values, counts in (
            ("borrowed", _BORROWED, bool(self.counted.fusion(self.best).neighbours)),
            ("newcomer", _NEWCOMER, bool(self.best.popularity)),
        ):
            changes: list[Change] = [{name: value} for value in values] if counts else [{name: 0.0}]
            worth = [
                sum(self.measure(self.best.model_copy(update=change), known, one) for one, known in worlds)
                for change in changes
            ]
            self.best = self.best.model_copy(update=changes[int(np.argmax(worth))])
        self.found = self.measure(self.best)


def _searched_kinds(config: FusionConfig) -> tuple[Collaborative, ...]:
    """Those that are counted in several ways; transitions have a search of their own."""
    return tuple(kind for kind in config.collaborative if kind in FITS)


def _unit(counted: Counted, kind: Collaborative, histories: Ragged) -> float:
    """What the best item of a history gets by a kind, on average."""
    some = histories.take(np.flatnonzero(histories.lengths > 0)[:_UNIT_CASES])
    if kind == "als":
        assert counted.factors is not None
        scores = counted.factors.fold_in(some) @ counted.factors.vectors.T
    else:
        scores = counted.neighbours[kind].sparse_scores(some, counted.n_items).toarray()
    return max(float(scores.max(axis=1).mean()), 1e-6) if scores.size else 1.0


def worlds_of(
    scorer: Scorer, counted: Counted, cases: Cases, seed: int, n_draws: int = _DRAWS
) -> list[tuple[Scorer, Counted]]:
    """What borrowing is chosen in: as it is where the cases mostly ask for new items, which known ones do not stand beside;
    otherwise draws in which a share of the known items is new, so that a gain for the new is weighed against what the known
    lose by it."""
    if _asks_for_new(counted, cases):
        return [(scorer, counted)]
    rng = np.random.default_rng((seed, _NEW_ITEMS))
    return [_with_new_items(scorer, counted, rng) for _ in range(n_draws)]


def _asks_for_new(counted: Counted, cases: Cases) -> bool:
    return bool(counted.is_new[cases.relevant.values].mean() > 0.5)


def _with_new_items(scorer: Scorer, counted: Counted, rng: np.random.Generator) -> tuple[Scorer, Counted]:
    """The scorer and what was counted, as if a share of the items with events had none: words are all that is known of them."""
    known = np.flatnonzero(~counted.is_new)
    is_new = counted.is_new.copy()
    is_new[rng.choice(known, round(_NEW_SHARE * len(known)), replace=False)] = True
    rows = torch.from_numpy(np.flatnonzero(is_new))
    item_vec = scorer.bank.item_vec.clone()
    item_vec[rows] = scorer.project(scorer.bank.text_vec[rows])
    return scorer.over(scorer.bank_rows(scorer.bank.text_vec, item_vec)).remembering(), counted.as_new(is_new)
