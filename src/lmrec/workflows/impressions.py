"""Judge the order of what was shown: the run's model and rivals on the same lists, which came after all that was learnt.

The lists of a split's validation part choose settings, click rules and the weights of stacked scores; those of its test part
are judged. A history is what its user did strictly before the list; live counts hold what everybody did strictly before it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel
from torch import Tensor

from lmrec.artifacts.files import write_json
from lmrec.artifacts.run import RunFolder
from lmrec.data.catalog import Catalog
from lmrec.data.impressions import Impressions
from lmrec.data.interactions import Interactions
from lmrec.data.proof import show_time
from lmrec.data.split import Split
from lmrec.evaluation.casefile import JudgedLists, fingerprint_lists
from lmrec.evaluation.evaluator import Scorer
from lmrec.evaluation.impressions import (
    CatalogScorer,
    ImpressionTable,
    ListScorer,
    ShownLists,
    build_impression_table,
    evaluate_lists,
    mean_auc,
)
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.click_rates import ClickRate, ClicksSoFar, Freshness, ShownLog
from lmrec.models.collaborative import Popularity
from lmrec.models.labels import LabelMatch, LabelMatchConfig
from lmrec.models.live_stack import LiveStack, LoggedCounts
from lmrec.models.nrms import NRMS, NRMSConfig
from lmrec.models.stacking import Stack, fit_stack
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.training.clicks import ClickLists, ClickTrainingConfig, fit_clicks, score_lists
from lmrec.workflows.counting import log_arrays
from lmrec.workflows.encode import read_texts, untuned_vectors
from lmrec.workflows.list_stack import Parts, StackedLists, best_click_rate, split_lists, stack_lists

NRMS_NAME = "NRMS on the same vectors"
STACKED = "lmrec + live counts"
STACKED_WITHOUT = "the same without lmrec"
STACKED_RIVALS = "live counts + words, labels and NRMS"
_NRMS_RATES = (2e-4, 5e-4, 1e-3)


@dataclass(frozen=True, eq=False)
class _Stacked:
    """Several scorers of lists as one: a rival that knows all that the others know."""

    name: str
    scorers: tuple[ListScorer, ...]
    stack: Stack

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        parts = [scorer.score_shown(history, candidates, time_ts) for scorer in self.scorers]
        return self.stack.score(np.stack(parts, axis=1))


@dataclass(frozen=True, eq=False)
class _Clicked:
    """A model that was trained on lists, as a scorer of lists."""

    name: str
    model: NRMS

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        return score_lists(self.model, history.last(self.model.config.max_history), candidates)


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A model of the run. asked: as it answers what came after all that it learnt. before: the same without what it learnt
    from validation, which is what may choose anything there."""

    asked: Scorer
    before: Scorer


def judge_impressions(
    run: RunFolder,
    recipe: Recipe,
    recommender: Recommender,
    split: Split,
    own: Callable[[], Mapping[str, OwnModel]],
    towers: Callable[[], OwnModel],
    served: str,
    show: bool,
) -> ImpressionTable | None:
    """The table of what was shown, written to impressions.json, and shown.parquet for comparisons; None where the data holds no
    lists or no cut in time.

    own: makes the run's models, by row name; served: the one of them that the run answers with; towers: makes its towers by
    themselves, of a run that has them.
    """
    file = run.data / "impressions.parquet"
    if not file.exists() or split.cut_ts is None:
        return None
    n_items = recommender.catalog.n_items
    parts = split_lists(Impressions.from_parquet(file), recommender.interactions, split.cut_ts, n_items)
    if not len(parts.validation) or not len(parts.test):
        return None
    notes: dict[str, str] = {}
    words = _words(recommender, recipe, show)
    labels = label_rows(recommender.catalog)

    def whole(name: str, scorer: Scorer) -> CatalogScorer:
        return CatalogScorer(name, scorer, n_items)

    rate = best_click_rate(parts)
    notes[rate.name] = _settings_note(rate.config, len(ClickRate.candidates()))
    matches = [_best(alike, parts.validation, notes) for alike in LabelMatch.candidates(words, labels)]
    nrms = _train_nrms(torch.from_numpy(words), parts, notes, show)
    plain: list[ListScorer] = [
        rate,
        ClicksSoFar(parts.shown),
        Freshness(parts.shown),
        LabelMatch(words, labels, LabelMatchConfig(labels=0.0)),
        LabelMatch(words, labels, LabelMatchConfig(words=0.0)),
        nrms,
    ]
    models = own()
    together = _stack_rivals(plain, parts.validation)
    live_only = stack_lists(None, parts, rate)
    logged = LoggedCounts(parts.shown, rate.config.half_life_hours)
    without = StackedLists(STACKED_WITHOUT, live_only, logged)
    with_ours: list[tuple[ListScorer, ListScorer]] = []
    noted = [(STACKED_RIVALS, together.stack), (STACKED_WITHOUT, live_only.stack)]
    if recommender.list_stack is not None:  # else this run serves none
        live = recommender.list_stack.stack
        heard = towers() if live.hears_towers else models[served]
        with_ours = [stacked_pair(live, parts.shown, heard, n_items)]
        noted.append((STACKED, live.stack))
    for name, stack in noted:
        notes[name] = f"weights from validation lists, in deviations of each part: {stack.words()}"
    counted = [Popularity().fit(log_arrays(log, n_items)) for log in (split.train_and_validation, split.train)]
    popular, popular_before = (whole(one.name, one) for one in counted)
    rivals: list[tuple[ListScorer, ListScorer]] = [(popular, popular_before)]
    rivals += [(one, one) for one in (rate, *matches, nrms, without, together)]
    ours: list[tuple[ListScorer, ListScorer]] = [
        (whole(name, model.asked), whole(name, model.before)) for name, model in models.items()
    ]
    with progress_bar("judge impressions", show) as bar:
        found = []
        every = [*rivals, *ours, *with_ours]
        for asked, earlier in every:
            found.append(evaluate_lists(asked, parts.test, parts.validation, earlier))
            bar(len(found), len(every))
    table = build_impression_table(
        found,
        [rival.name for rival, _ in rivals],
        _sentence(parts, split, recommender.interactions),
        float(parts.test.clicked.mean()),
        recipe.evaluation,
        notes,
    )
    write_json(run.impressions_file, table.as_dict())
    questions = fingerprint_lists(parts.test, recommender.interactions.user_ids, recommender.catalog.ids)
    data = str(run.read_record()["data_fingerprint"])
    JudgedLists.of(found, table.sentence, data, questions, served).save_parquet(run.shown_file)
    return table


def read_impression_table(run: RunFolder) -> ImpressionTable | None:
    """The table of the last judgement, None where there is none."""
    if not run.impressions_file.exists():
        return None
    return ImpressionTable.from_dict(json.loads(run.impressions_file.read_text(encoding="utf-8")))


def stacked_pair(stack: LiveStack, shown: ShownLog, heard: OwnModel, n_items: int) -> tuple[ListScorer, ListScorer]:
    """What the run serves for candidates, asked of lists of this log: with the model that the stack hears as it is asked, and
    as it was before validation."""
    counts = LoggedCounts(shown, stack.click_rate.half_life_hours)

    def with_scores_of(scorer: Scorer) -> ListScorer:
        return StackedLists(STACKED, stack, counts, CatalogScorer("heard", scorer, n_items))

    return with_scores_of(heard.asked), with_scores_of(heard.before)


def _stack_rivals(scorers: Sequence[ListScorer], lists: ShownLists) -> _Stacked:
    """Scorers fused with weights that foretell best what was clicked in these lists."""
    parts = [scorer.score_shown(lists.history, lists.candidates, lists.time_ts) for scorer in scorers]
    names = _different([scorer.name for scorer in scorers])
    stack = fit_stack(names, np.stack(parts, axis=1).astype(np.float64), lists.candidates, lists.clicked, pull=1e-2)
    return _Stacked(STACKED_RIVALS, tuple(scorers), stack)


def label_rows(catalog: Catalog) -> list[IntArray]:
    """For each attribute column of text (N,) its values as numbers, -1 where blank."""
    found = []
    for name in catalog.attribute_columns:
        column = catalog.frame[name]
        if column.dtype == pl.String:
            blank = column.is_null() | (column.str.strip_chars() == "")
            codes = column.rank("dense").cast(pl.Int64) - 1
            found.append(np.where(blank.to_numpy(), -1, codes.fill_null(-1).to_numpy()))
    return found


def _words(recommender: Recommender, recipe: Recipe, show: bool) -> FloatArray:
    """(N, Dt) unit vectors of the un-tuned language model, zero where an item has no word: blanks are not alike."""
    source = read_texts(recommender.catalog, recommender.checkpoint.template, recipe.encoder)
    vectors: Tensor = untuned_vectors(source, source.load_encoder(), show)
    blank = np.array([not text for text in source.texts])
    found: FloatArray = torch.nn.functional.normalize(vectors.float(), dim=-1).numpy().copy()
    found[blank] = 0.0
    return found


def _best(scorers: Sequence[ListScorer], validation: ShownLists, notes: dict[str, str]) -> ListScorer:
    found = [mean_auc(scorer, validation) for scorer in scorers]
    best = scorers[int(np.argmax(found))]
    config = getattr(best, "config")  # noqa: B009 - every scorer with settings has one
    notes[best.name] = _settings_note(config, len(scorers))
    return best


def _settings_note(config: BaseModel, n_tried: int) -> str:
    settings = ", ".join(f"{key} {value}" for key, value in config.model_dump().items() if value is not None)
    return f"{settings} (best of {n_tried} on validation lists)"


def _train_nrms(text_vec: Tensor, parts: Parts, notes: dict[str, str], show: bool) -> ListScorer:
    """Learnt from the training lists, the rate of learning and the epoch chosen on validation lists."""
    config = NRMSConfig()
    train = ClickLists(parts.train.history.last(config.max_history), parts.train.candidates, parts.train.clicked)
    tried: list[tuple[float, float, ListScorer]] = []
    with progress_bar(f"train {NRMS_NAME}", show) as bar:
        for rate in _NRMS_RATES:
            torch.manual_seed(0)
            scorer = _Clicked(NRMS_NAME, NRMS(text_vec, config))
            training = ClickTrainingConfig(learning_rate=rate)
            validate = partial(mean_auc, scorer, parts.validation)
            metric = fit_clicks(scorer.model, train, validate, training, bar) if len(train.candidates) else validate()
            tried.append((metric, rate, scorer))
    _, rate, best = max(tried, key=lambda entry: entry[0])
    notes[NRMS_NAME] = (
        f"{int(train.clicked.sum()):,} clicks of {len(train.candidates):,} training lists, 4 not clicked beside each, "
        f"learning rate {rate:g} (best of {len(tried)} on validation lists)"
    )
    return best


def _different(names: Sequence[str]) -> list[str]:
    """Names with a number where two are alike.

    >>> _different(["a", "b", "a"])
    ['a', 'b', 'a 2']
    """
    return [
        name if names[:at].count(name) == 0 else f"{name} {names[:at].count(name) + 1}" for at, name in enumerate(names)
    ]


def _sentence(parts: Parts, split: Split, interactions: Interactions) -> str:
    assert split.cut_ts is not None
    validation, test = (show_time(ts, interactions.time_kind) for ts in split.cut_ts)
    left_out = (
        f"; {parts.n_left_out:,} lists without a right and a wrong candidate left out" if parts.n_left_out else ""
    )
    return (
        f"{len(parts.test):,} lists shown from {test} on to {len(np.unique(parts.test.user_idx)):,} users, "
        f"{len(parts.test.clicked):,} candidates; {len(parts.train):,} lists before {validation} to learn from, "
        f"{len(parts.validation):,} between to choose by{left_out}."
    )
