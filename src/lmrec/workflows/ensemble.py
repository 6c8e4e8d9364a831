"""Ensemble: several fitted runs as one run folder, by scores or by ranks, equal or with weights learnt on validation."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmrec.artifacts.ensemble import EnsembleDescription, EnsembleKind, save_ensemble
from lmrec.artifacts.run import RunFolder, create_run, describe_made, open_run
from lmrec.data.history import HistoryIndex
from lmrec.data.split import Split
from lmrec.errors import InputError
from lmrec.models.stacking import fit_stack
from lmrec.recipe import load_fitted
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.judge import training_scorer
from lmrec.workflows.live_order import learn_live_order
from lmrec.workflows.pools import pool_scores
from lmrec.workflows.prepare import split_log

_N_SCALED = 500  # histories by which members' scores are brought to one scale
_N_LEARNT = 2000  # validation cases that weights are learnt on


def ensemble_runs(
    paths: Sequence[Path | str], out: Path | str, by: EnsembleKind = "scores", learn: bool = False
) -> RunFolder:
    """Make a run folder that holds the runs and answers as their ensemble; the members are copied, sharing files.

    by scores: the sum, each member's brought to unit spread, or weighted as `learn` finds on validation. by ranks: the sum
    of reciprocal ranks. Raises InputError for runs that cannot answer together: other items, events, splits or templates.
    """
    if len(paths) < 2:
        raise InputError(f"an ensemble has at least two members; got {len(paths)}")
    if learn and by == "ranks":
        raise InputError("reciprocal ranks have no weights to learn: leave out --learn, or put together by scores")
    runs = [open_run(path) for path in paths]
    members = [Recommender.load(path) for path in paths]
    check_together(runs, members)
    recipe = load_fitted(runs[0].recipe_file)
    weights = (1.0,) * len(members)
    if by == "scores":
        split = split_log(members[0].interactions, members[0].catalog.n_items, recipe)
        weights = (
            _learnt(runs, members, split, recipe.evaluation.exclude_seen) if learn else _unit_spread(members, split)
        )
    run = create_run(out, resume=False)
    try:
        shutil.rmtree(run.data)
        shutil.copytree(runs[0].data, run.data)
        shutil.copy2(runs[0].recipe_file, run.recipe_file)
        names = tuple(path.path.name for path in runs)
        save_ensemble(run, [one.path for one in runs], EnsembleDescription(by, names, weights, learn))
        note = f"an ensemble by {by} of {', '.join(str(path) for path in paths)}"
        run.update_record(**describe_made(runs[0], note, without=("reranker", "auxiliary", "fusion")))
        learn_live_order(run)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)  # the folder was ours and empty
        raise
    return run


def check_together(runs: Sequence[RunFolder], members: Sequence[Recommender]) -> None:
    """Raises InputError where runs differ in data, split or template, or are of a kind that does not join others."""
    first = members[0]
    for run, member in zip(runs, members, strict=True):
        if member.ensemble is not None:
            raise InputError(f"'{run.path}' is an ensemble itself. Give its members: {run.path}/members/0, ...")
        if member.fusion.weights.ranks:
            raise InputError(f"'{run.path}' puts its parts together by ranks. Fit it with another fusion.method")
        for what, same in (
            ("other items", member.catalog.fingerprint == first.catalog.fingerprint),
            ("other events", member.interactions.fingerprint == first.interactions.fingerprint),
            ("another split", _split_of(run) == _split_of(runs[0])),
            ("another template", member.checkpoint.template == first.checkpoint.template),
            ("another profile of users", member.checkpoint.configs.profile == first.checkpoint.configs.profile),
            ("no words where the first has some", _knows_words(member) == _knows_words(first)),
        ):
            if not same:
                raise InputError(
                    f"'{run.path}' and '{runs[0].path}' cannot answer together: {what}. Fit both on the same data, split and "
                    "template, such as with two seeds or two encoders"
                )
        if member.checkpoint.configs.user_model.kind == "text":
            raise InputError(
                f"'{run.path}' reads histories as text (user_model.kind 'text'), which no ensemble does. Leave it out"
            )


def _split_of(run: RunFolder) -> object:
    return load_fitted(run.recipe_file).split


def _knows_words(member: Recommender) -> bool:
    return member.checkpoint.configs.item.source != "id"


def _unit_spread(members: Sequence[Recommender], split: Split) -> tuple[float, ...]:
    """1 / the mean deviation of a member's scores over the catalog, so that none is louder than another: by models and
    histories that know training alone, for the judge measures these weights."""
    index = HistoryIndex.from_interactions(split.train)
    users = np.random.default_rng(0).permutation(index.n_users)[:_N_SCALED]
    histories = index.all(np.sort(users))
    spreads = (training_scorer(member, split).score(histories).std(axis=1).mean() for member in members)
    return tuple(float(1.0 / max(spread, 1e-9)) for spread in spreads)


def _learnt(
    runs: Sequence[RunFolder], members: Sequence[Recommender], split: Split, exclude_seen: bool
) -> tuple[float, ...]:
    """What foretells best, among what the members put on top, what came next in validation."""
    cases = split.validation.sample(_N_LEARNT, 0)
    if not len(cases):
        raise InputError("weights are learnt on validation, and this split has none. Make the ensemble without --learn")
    scorers = [training_scorer(member, split) for member in members]
    parts, pools, chosen = pool_scores(scorers, cases, exclude_seen)
    names = [run.path.name for run in runs]
    stack = fit_stack(names, parts, pools, chosen, nonnegative=True)
    if not any(stack.weights):
        raise InputError("validation gives no member any weight. Make the ensemble without --learn")
    return tuple(weight / scale for weight, scale in zip(stack.weights, stack.scale, strict=True))
