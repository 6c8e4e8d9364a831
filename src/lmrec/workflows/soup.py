"""Soup: several fitted runs as one model, whose weights are the mean of theirs. It costs what one of them costs.

    uniform: the mean of all. greedy: from the best run on, the next joins where the mean with it validates no worse.

Source: Wortsman et al. 2022, https://arxiv.org/abs/2203.05482. Runs that began from one start lie in one valley, where a mean
is as good as its parts or better; towers that began from other weights do not, and are refused. Runs are chosen by what they
were before they learnt from validation; what is served is the mean of what they serve.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from lmrec.artifacts.checkpoint import build_towers, compute_item_vectors, save_checkpoint, save_vectors
from lmrec.artifacts.run import RunFolder, create_run, describe_made, open_run
from lmrec.data.split import Split
from lmrec.errors import InputError
from lmrec.evaluation.evaluator import evaluate
from lmrec.models.encoder import encode_tokens
from lmrec.models.two_tower import TwoTower
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe, load_fitted
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import Scorer, build_bank
from lmrec.text.tokens import tokenize_texts
from lmrec.training.trend import PastPopularity
from lmrec.workflows.counting import fit_fusion
from lmrec.workflows.ensemble import check_together
from lmrec.workflows.fuse import weights_by_recipe
from lmrec.workflows.index import save_index
from lmrec.workflows.judge import has_refit
from lmrec.workflows.live_order import learn_live_order
from lmrec.workflows.prepare import split_log
from lmrec.workflows.train import TREND_WEIGHT, beside_popularity, learnt_weight

SoupKind: TypeAlias = Literal["greedy", "uniform"]
Weights: TypeAlias = Mapping[str, Tensor]

_ONLY_TRAINS = {"dropout", "item_dropout", "id_dropout"}  # leave no trace in a model's shape


@dataclass(frozen=True, eq=False)
class Ingredient:
    """A run's weights: towers as they are served and as they were validated, its language model's and what that makes of the
    catalog, and what the popularity counted beside which the towers have learnt, if they did."""

    name: str
    served: Weights
    validated: Weights
    encoder: Weights
    text_vec: Tensor  # (N, Dt)
    is_tuned: bool
    trend_weight: float


@dataclass(frozen=True)
class SoupResult:
    """alone: each run's validation metric by itself, in the order given. chosen: the places of what is in the soup."""

    run: RunFolder
    alone: tuple[float, ...]
    chosen: tuple[int, ...]
    metric: float


def mix(weights: Sequence[Weights]) -> dict[str, Tensor]:
    """The mean of equally shaped weights, name by name; what is no number with a fraction (masks) is the first's.

    >>> mix([{"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}])["w"].item()
    1.5
    """
    first = weights[0]
    return {
        name: torch.stack([one[name] for one in weights]).mean(0) if value.is_floating_point() else value
        for name, value in first.items()
    }


def choose_greedily(
    alone: Sequence[float], measure: Callable[[tuple[int, ...]], float]
) -> tuple[tuple[int, ...], float]:
    """Places of what is mixed, the best first, and its metric; `measure` mixes and validates.

    >>> choose_greedily([0.2, 0.3, 0.1], lambda places: 0.3 + 0.1 * (0 in places) - 0.1 * (2 in places))
    ((1, 0), 0.4)
    """
    order = sorted(range(len(alone)), key=lambda place: -alone[place])
    chosen: tuple[int, ...] = (order[0],)
    best = alone[order[0]]
    for place in order[1:]:
        found = measure((*chosen, place))
        if found >= best:
            chosen, best = (*chosen, place), found
    return chosen, best


def soup_runs(paths: Sequence[Path | str], out: Path | str, kind: SoupKind = "greedy", show: bool = True) -> SoupResult:
    """Make a run folder that serves the mean of the runs' weights; it is judged, served and updated as any run is.

    Raises InputError for runs whose mean means nothing: other data, split, template, encoder, shapes or first weights.
    """
    if len(paths) < 2:
        raise InputError(f"a soup has at least two runs in it; got {len(paths)}")
    runs = [open_run(path) for path in paths]
    members = [Recommender.load(path) for path in paths]
    check_together(runs, members)
    recipes = [load_fitted(run.recipe_file) for run in runs]
    _check_same_valley(runs, recipes)
    _check_same_whitening(runs, members)
    recipe, first = recipes[0], members[0]
    split = split_log(first.interactions, first.catalog.n_items, recipe)
    if not len(split.validation):
        raise InputError("what is in a soup is chosen on validation, and this split has none. Use `lmrec ensemble`")
    ingredients = [_ingredient(run, member) for run, member in zip(runs, members, strict=True)]
    kitchen = _Kitchen(first, recipe, split, ingredients)
    with progress_bar(f"{kind} soup", show) as bar:
        alone = []
        for place in range(len(runs)):
            alone.append(kitchen.measure((place,)))
            bar(place + 1, len(runs))
    everything = tuple(range(len(runs)))
    if kind == "greedy":
        chosen, metric = choose_greedily(alone, kitchen.measure)
    else:
        chosen, metric = everything, kitchen.measure(everything)
    run = create_run(out, resume=False)
    try:
        fusion = _save(run, runs[chosen[0]], members[chosen[0]], recipes[chosen[0]], kitchen, chosen, show)
        note = f"a {kind} soup of {', '.join(ingredients[place].name for place in chosen)}"
        soup = {
            "kind": kind,
            "runs": [str(path) for path in paths],
            "alone": alone,
            "chosen": list(chosen),
            "validation": metric,
        }
        made = describe_made(runs[chosen[0]], note, without=("reranker", "auxiliary"))
        run.update_record(**{**made, "soup": soup, "fusion": fusion})
        if kitchen.is_tuned(chosen):
            run.update_record(training={**run.read_record()["training"], "best_stage": "tuned"})
        if kitchen.past is not None:
            run.update_record(**{TREND_WEIGHT: kitchen.trend_weight(chosen)})
        learn_live_order(run)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)  # the folder was ours and empty
        raise
    return SoupResult(run, tuple(alone), chosen, metric)


def _check_same_whitening(runs: Sequence[RunFolder], members: Sequence[Recommender]) -> None:
    """Principal directions have no sign of their own, so processors may disagree on them."""
    first = members[0].towers.item_tower.directions
    for run, member in zip(runs, members, strict=True):
        if not torch.allclose(
            member.towers.item_tower.directions, first, rtol=1e-2, atol=1e-2 * float(first.abs().max())
        ):
            raise InputError(
                f"'{run.path}' and '{runs[0].path}' make no soup: their towers whiten words in other directions, as runs of "
                "machines of two kinds may. Fit both on one machine, or use `lmrec ensemble`"
            )


def _check_same_valley(runs: Sequence[RunFolder], recipes: Sequence[Recipe]) -> None:
    def shape_of(recipe: Recipe) -> list[object]:
        return [
            recipe.item.model_dump(exclude=_ONLY_TRAINS),
            recipe.user_model.model_dump(exclude=_ONLY_TRAINS),
            (recipe.head.kind, recipe.head.width),
        ]

    def start_of(recipe: Recipe) -> int:
        config = recipe.training
        return config.seed if config.start_seed is None else config.start_seed

    def model_of(recipe: Recipe) -> tuple[object, ...]:
        return recipe.encoder.name, recipe.encoder.pooling, recipe.encoder.max_tokens

    for run, recipe in zip(runs, recipes, strict=True):
        if "compressed" in run.read_record():
            raise InputError(
                f"'{run.path}' is compressed: its layers, heads and widths are its own, and a mean with another's means "
                "nothing. Make the soup first, then compress it"
            )
        for what, same, way in (
            ("another language model", model_of(recipe) == model_of(recipes[0]), "the same encoder"),
            ("another shape of towers", shape_of(recipe) == shape_of(recipes[0]), "the same item, user_model and head"),
            (
                "towers that began from other weights, so that their mean means nothing",
                start_of(recipe) == start_of(recipes[0]),
                "one training.start_seed",
            ),
            (
                "an adapter, whose factors have no mean that is the factors of a mean",
                recipe.encoder.adapter.kind == "none",
                "encoder.adapter.kind 'none'",
            ),
            (
                "towers that learnt beside another popularity",
                recipe.objective.trend_half_life_days == recipes[0].objective.trend_half_life_days,
                "one objective.trend_half_life_days",
            ),
            (
                "lists that are judged otherwise, so that one validation does not compare them",
                recipe.evaluation == recipes[0].evaluation,
                "one [evaluation]",
            ),
            ("learning again in one and not in the other", has_refit(run) == has_refit(runs[0]), "one training.refit"),
        ):
            if not same:
                these = f"'{run.path}'" if run is runs[0] else f"'{run.path}' and '{runs[0].path}'"
                raise InputError(f"no soup can be made of {these}: {what}. Fit all with {way}, or use `lmrec ensemble`")


def _ingredient(run: RunFolder, member: Recommender) -> Ingredient:
    checkpoint = member.checkpoint
    served: Weights = checkpoint.load_towers().state_dict()
    is_tuned = run.read_record()["training"]["best_stage"] == "tuned"
    validated = served
    if has_refit(run):
        validated = (
            checkpoint.load_tuned_stage()[0] if is_tuned else checkpoint.load_towers(frozen_stage=True)
        ).state_dict()
    return Ingredient(
        name=run.path.name,
        served=served,
        validated=validated,
        encoder=checkpoint.load_encoder().state_dict(),
        text_vec=member.vectors.text_vec,
        is_tuned=is_tuned,
        trend_weight=learnt_weight(run),
    )


class _Kitchen:
    """Mixes ingredients and asks validation; what was encoded for a set of language models is kept."""

    def __init__(self, first: Recommender, recipe: Recipe, split: Split, ingredients: Sequence[Ingredient]) -> None:
        self.first, self.recipe, self.split, self.ingredients = first, recipe, split, ingredients
        self.cases = split.validation.sample(recipe.training.validation_cases, recipe.training.seed)
        self.encoder = first.checkpoint.load_encoder()
        self._text_vec: dict[tuple[int, ...], Tensor] = {}

    def is_tuned(self, places: tuple[int, ...]) -> bool:
        return any(self.ingredients[place].is_tuned for place in places)

    def put_encoder(self, places: tuple[int, ...]) -> None:
        self.encoder.load_state_dict(mix([self.ingredients[place].encoder for place in places]))

    def text_vec(self, places: tuple[int, ...]) -> Tensor:
        """(N, Dt) by the mean of these language models."""
        key = tuple(sorted(places))
        if len(key) == 1 or not self.is_tuned(key):  # all language models of these are as they were
            return self.ingredients[key[0]].text_vec
        if key not in self._text_vec:
            self.put_encoder(key)
            checkpoint = self.first.checkpoint
            config = checkpoint.configs.encoder
            texts = checkpoint.template.render_items(self.first.catalog.frame)
            tokens = tokenize_texts(checkpoint.load_tokenizer(), texts, config.max_tokens).ids
            vectors = encode_tokens(self.encoder, tokens, config.batch_tokens, torch.device("cpu"))
            self._text_vec[key] = torch.from_numpy(vectors)
        return self._text_vec[key]

    def towers(self, weights: Sequence[Weights]) -> TwoTower:
        checkpoint = self.first.checkpoint
        towers = build_towers(checkpoint.n_items, checkpoint.text_width, checkpoint.configs)
        towers.load_state_dict(mix(weights))
        return towers.eval()

    def scorer(self, places: tuple[int, ...], validated: bool) -> Scorer:
        parts = [self.ingredients[place] for place in places]
        towers = self.towers([part.validated if validated else part.served for part in parts])
        bank = build_bank(towers, self.text_vec(places))
        scorer = Scorer("soup", towers, bank, self.recipe.user_model.max_history)
        return beside_popularity(scorer, self.trend_weight(places), self.past) if validated and self.past else scorer

    def trend_weight(self, places: tuple[int, ...]) -> float:
        return fmean(self.ingredients[place].trend_weight for place in places)

    @cached_property
    def past(self) -> PastPopularity | None:
        """What the towers have learnt beside, if anything."""
        half_life_days = self.recipe.objective.trend_half_life_days
        if not half_life_days:
            return None
        return PastPopularity.of(self.split.train, self.first.catalog.n_items, half_life_days)

    def measure(self, places: tuple[int, ...]) -> float:
        """The recipe's main metric on validation, of towers that have not learnt from it."""
        scorer = self.scorer(places, validated=True)
        found = evaluate(scorer, self.cases, scorer.bank.n_items, self.recipe.evaluation)
        return float(found.aggregate[self.recipe.evaluation.metric])


def _save(
    run: RunFolder,
    source: RunFolder,
    member: Recommender,
    recipe: Recipe,
    kitchen: _Kitchen,
    places: tuple[int, ...],
    show: bool,
) -> dict[str, Any]:
    """By the recipe of `source`, the best of them; what is fused, as run.json has it."""
    split = kitchen.split
    shutil.rmtree(run.data)
    shutil.copytree(source.data, run.data)
    shutil.copy2(source.recipe_file, run.recipe_file)
    served, validated = kitchen.scorer(places, validated=False), kitchen.scorer(places, validated=True)
    weights, fused_metric = weights_by_recipe(validated, split, recipe, show)
    answering = served.fused(fit_fusion(weights, member.interactions, member.catalog.n_items))
    text_vec = kitchen.text_vec(places)
    kitchen.put_encoder(places)
    frozen: dict[str, Any] | None = None
    tuned: dict[str, Any] | None = None
    if has_refit(source):
        before = dict(validated.towers.state_dict())
        frozen, tuned = (None, {**before, "text_vec": text_vec}) if kitchen.is_tuned(places) else (before, None)
    old = member.checkpoint
    checkpoint = save_checkpoint(
        run.checkpoint,
        served.towers,
        kitchen.encoder,
        old.load_tokenizer(),
        old.template,
        old.configs,
        frozen,
        tuned,
        answering.fusion,
    )
    vectors = compute_item_vectors(served.towers, text_vec)
    save_vectors(run.vectors_file, vectors, checkpoint, member.catalog.fingerprint)
    save_index(run, answering, member.interactions, recipe.index, checkpoint.fingerprint)
    return {**weights.model_dump(mode="json"), "validation": fused_metric}
