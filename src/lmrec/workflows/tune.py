"""Tune: look for a better recipe, trial by trial, with Optuna; then fit the best one anew with fresh seeds.

Trials are compared by validation alone; the test part is looked at only for the recipe that was chosen, and only with seeds
that chose nothing. Everything lies in one folder: the study (SQLite), so that the same command goes on where it stopped
and several workers can share it, the best recipe, the pictures, and the confirming runs.

Akiba et al. 2019, https://arxiv.org/abs/1907.10902; importance by PED-ANOVA, Watanabe et al. 2023,
https://arxiv.org/abs/2304.10255.
"""

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmrec.artifacts.encoder_files import fingerprint_encoder
from lmrec.artifacts.files import write_text
from lmrec.artifacts.lock import locked
from lmrec.artifacts.run import RunFolder
from lmrec.errors import InputError, Interrupted, MissingExtraError, RecipeError, RunFolderError, TrainingError
from lmrec.evaluation.search_charts import TrialPoint, draw_history, draw_importance
from lmrec.idle import unheard
from lmrec.models.fusion import COLLABORATIVE
from lmrec.models.shared_states import sharing_states
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe, recipe_toml, with_choices
from lmrec.training.search import Choices, Dimension, TuneConfig
from lmrec.workflows.prepare import Prepared, made_split
from lmrec.workflows.train import fit_run, training_fingerprint

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

_NAME = "lmrec"
_MIN_FOR_IMPORTANCE = 4
_SQLITE_TIMEOUT_S = 60
_MOST_ASKED = 500  # drawings, about half a millisecond each, to find out whether a key is ever heard
_REFUSED_ALIKE = 3  # trials, of which none came further: what refuses them all is not what is drawn
# A trial is compared by what its towers reach on validation; what comes after that is for runs that are kept.
_TRIAL_CHOICES: Mapping[str, Any] = {
    "training.refit": False,
    **{f"fusion.{kind}": False for kind in COLLABORATIVE},
    "fusion.content": False,
    "fusion.popularity": False,
    "tracking.to": (),
}


@dataclass(frozen=True)
class Confirmation:
    """The metric on the test part, a value a fresh seed: of the recipe that was given, and of the one that was found."""

    seeds: tuple[int, ...]
    given: tuple[float, ...]
    found: tuple[float, ...]

    @property
    def gain(self) -> float:
        """The mean difference."""
        return sum(b - a for a, b in zip(self.given, self.found, strict=True)) / len(self.seeds)


@dataclass(frozen=True)
class Tuning:
    """best_value: the validation metric of the best whole trial, best: its choices; importance: choice -> share."""

    out: Path
    metric: str
    n_whole: int
    n_pruned: int
    n_refused: int
    best_value: float
    best: dict[str, Any]
    recipe_file: Path
    importance: dict[str, float] = field(default_factory=dict)
    confirmed: Confirmation | None = None


@sharing_states()
def tune_recipe(prepared: Prepared, recipe: Recipe, out: Path | str, confirm: int = 0, show: bool = True) -> Tuning:
    """Search recipe.tune.space until recipe.tune.trials are done, also those of earlier calls and of other workers.

    confirm: so many fresh seeds, with each of which both recipes are fitted and judged on the test part.
    Ctrl-C loses no finished trial: the same call goes on. Raises MissingExtraError without Optuna, InputError where
    nothing validates, RunFolderError where `out` holds a study of another recipe or other data.
    """
    _require_optuna()
    if not len(prepared.split.validation):
        raise InputError("trials are compared on validation, and this split leaves none. Set split.validation above 0")
    if confirm and not len(prepared.split.test):
        raise InputError(f"--confirm judges on the test part, and split '{prepared.split.kind}' leaves none")
    recipe = recipe.model_copy(update={"split": made_split(prepared, recipe)})
    _check_heard(recipe)
    _check_fits(recipe)
    folder = Path(out)
    study = _open_study(folder, recipe, prepared)
    try:
        _search(study, recipe, prepared, folder, show)
    except KeyboardInterrupt:
        raise Interrupted(_stopped(study)) from None
    whole, pruned = _trials(study, "COMPLETE"), _trials(study, "PRUNED")
    refused = [trial for trial in pruned if "refused" in trial.user_attrs]
    if not whole:
        why = (
            f" Of the {len(refused)} that were refused the first: {refused[0].user_attrs['refused']}."
            if refused
            else ""
        )
        raise InputError(
            f"none of {len(study.trials)} trials came to its end.{why} Look at tune.space, or set tune.trials higher"
        )
    best = max(whole, key=lambda trial: (trial.value, -trial.number))
    found = _without_idle(with_choices(_settled(recipe), best.params))
    recipe_file = folder / "best.toml"
    write_text(recipe_file, recipe_toml(found))
    importance = _importance(study, whole)
    points = [_point(trial) for trial in study.trials if _reached(trial) is not None]
    draw_history(folder / "history.png", points, recipe.evaluation.metric)
    if importance:
        draw_importance(folder / "importance.png", importance)
    confirmed: Confirmation | None = None
    if confirm:
        try:
            confirmed = _confirm(_settled(recipe), found, prepared, folder / "confirm", confirm, show)
        except (Interrupted, KeyboardInterrupt):  # of a fit, which does not know how it is resumed here
            raise Interrupted(_stopped(study)) from None
    return Tuning(
        out=folder,
        metric=recipe.evaluation.metric,
        n_whole=len(whole),
        n_pruned=len(pruned) - len(refused),
        n_refused=len(refused),
        best_value=float(best.value or 0.0),
        best=dict(best.params),
        recipe_file=recipe_file,
        importance=importance,
        confirmed=confirmed,
    )


def suggest(trial: "Trial", space: Mapping[str, Dimension]) -> dict[str, Any]:
    """A value for each choice of the space."""
    values: dict[str, Any] = {}
    for key, dimension in space.items():
        if isinstance(dimension, Choices):
            values[key] = trial.suggest_categorical(key, list(dimension.choices))
        elif dimension.is_whole:
            low, high, step = int(dimension.low), int(dimension.high), int(dimension.step or 1)
            values[key] = trial.suggest_int(key, low, high, step=step, log=dimension.log)
        else:
            values[key] = trial.suggest_float(
                key, dimension.low, dimension.high, step=dimension.step, log=dimension.log
            )
    return values


def _settled(recipe: Recipe) -> Recipe:
    """The recipe with nothing left to search."""
    return recipe.model_copy(update={"tune": TuneConfig()})


def _without_idle(recipe: Recipe) -> Recipe:
    """The recipe without what was drawn, or said, and is of an alternative that was not drawn: it would be refused."""
    return with_choices(recipe, {one.key: one.default for one in recipe.idle if one.refused})


def _check_heard(recipe: Recipe) -> None:
    """Raises RecipeError for a key of the search space that changes nothing, whatever else is drawn.

    In some trials it may: a rate of the second stage is idle where no epochs of it are drawn.
    """
    space, still = recipe.tune.searched, _settled(recipe)
    silent: dict[str, str] | None = None
    for number, values in enumerate(_drawings(space)):
        if number == _MOST_ASKED:
            return
        try:
            drawn = unheard(with_choices(still, values))
        except RecipeError:  # each value fits by itself, but not all of these together
            continue
        always = space if silent is None else silent
        silent = {key: drawn[key][0].needs for key in always if key in drawn}
    for key, needs in (silent or {}).items():
        raise RecipeError(
            f"tune.space varies {key}, and nothing would come of it without {needs}. Choose that, or other keys"
        )


def _check_fits(recipe: Recipe) -> None:
    """Raises RecipeError where the recipe is none once it is a trial's, whatever is drawn."""
    try:
        _trial_recipe(recipe, {})
        return
    except RecipeError as error:
        why = str(error)
    for number, values in enumerate(_drawings(recipe.tune.searched)):
        if number == _MOST_ASKED or _fits_a_trial(recipe, values):
            return
    raise RecipeError(f"a trial is fitted without training.refit, fused parts and trackers, and then {why}")


def _fits_a_trial(recipe: Recipe, values: Mapping[str, Any]) -> bool:
    try:
        _trial_recipe(recipe, values)
    except RecipeError:
        return False
    return True


def _trial_recipe(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Raises RecipeError where each value fits by itself, but not all of these together."""
    return _without_idle(with_choices(_settled(recipe), {**values, **_TRIAL_CHOICES}))


def _drawings(space: Mapping[str, Dimension]) -> Iterator[dict[str, Any]]:
    """Every choice, and both ends of every range, with all others'."""
    for values in product(*(dimension.examples for dimension in space.values())):
        yield dict(zip(space, values, strict=True))


def _open_study(folder: Path, recipe: Recipe, prepared: Prepared) -> "Study":
    import optuna

    file = folder / "study.db"
    if folder.exists() and not (folder / "study.lock").exists() and any(folder.iterdir()):
        raise RunFolderError(f"'{folder}' exists and holds no study. Choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what ends a trial is told here, without its traceback
    config = recipe.tune
    with locked(folder / "study.lock", "search", wait=True):  # workers that start together make its tables once
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": _SQLITE_TIMEOUT_S}}
        )
        study = optuna.create_study(storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True)
    if config.prune:
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=config.startup, n_warmup_steps=1)
    else:
        study.pruner = optuna.pruners.NopPruner()
    text = training_fingerprint(recipe, prepared) + config.model_dump_json(exclude={"trials"})
    text += _fingerprint_searched(recipe, prepared)
    mine = hashlib.sha256(text.encode()).hexdigest()[:16]
    known = study.user_attrs.get("fingerprint")
    if known is None:
        study.set_user_attr("fingerprint", mine)
    elif known != mine:
        raise RunFolderError(
            f"'{folder}' holds a study of another recipe, language model or data ({len(study.trials)} trials). Choose another "
            "--out"
        )
    return study


def _fingerprint_searched(recipe: Recipe, prepared: Prepared) -> str:
    """Of what trials read and the recipe itself does not: language models in folders, the users' table."""
    space, users = recipe.tune.searched, prepared.dataset.users
    names = space["encoder.name"].examples if "encoder.name" in space else ()
    found = [fingerprint_encoder(Path(name), recipe.encoder.pooling) for name in names if Path(name).is_dir()]
    if users is not None and "template.user" in space:
        found.append(users.fingerprint)
    return " ".join(found)


def _build_sampler(config: TuneConfig, seed: int) -> "BaseSampler":
    """One that draws choice by choice, when asked for it."""
    from optuna.samplers import RandomSampler, TPESampler

    if config.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=config.startup, multivariate=False)


def _search(study: "Study", recipe: Recipe, prepared: Prepared, folder: Path, show: bool) -> None:
    """Trial after trial until enough are done; a stopped one is asked again first by the next call."""
    n_wanted, asked = recipe.tune.trials, list[dict[str, Any]]()
    objective = _objective_of(recipe, prepared, folder, asked)
    with progress_bar("tune", show) as bar:
        while (n_done := len(_trials(study, "COMPLETE", "PRUNED"))) < n_wanted:
            bar(n_done, n_wanted)
            asked.clear()
            try:
                study.optimize(objective, n_trials=1)
            except (Interrupted, KeyboardInterrupt):
                if asked:  # other workers may have begun others since
                    study.enqueue_trial(asked[-1])
                raise Interrupted(_stopped(study)) from None
            whole = _trials(study, "COMPLETE")
            if whole:
                bar.say(f"best {max(float(trial.value or 0.0) for trial in whole):.4f}")
            elif _refused_for_one_reason(study):
                return  # whatever is drawn
        bar(n_done, n_wanted)


def _refused_for_one_reason(study: "Study") -> bool:
    reasons = [trial.user_attrs.get("refused") for trial in _trials(study, "COMPLETE", "PRUNED")]
    return len(reasons) >= _REFUSED_ALIKE and None not in reasons and len({*reasons}) == 1


def _objective_of(
    recipe: Recipe, prepared: Prepared, folder: Path, asked: list[dict[str, Any]]
) -> Callable[["Trial"], float]:
    """asked: gets the parameters of each trial when it begins."""
    import optuna

    def objective(trial: "Trial") -> float:
        # A stream for each trial: workers do not repeat each other, and a resumed search goes on as it would have.
        trial.study.sampler = _build_sampler(recipe.tune, recipe.training.seed + trial.number)
        values = suggest(trial, recipe.tune.searched)
        asked.append(dict(trial.params))

        def watch(row: dict[str, Any]) -> None:
            if "validation" not in row:
                return
            before = chosen.training.frozen_epochs if row["stage"] == "tuned" else 0
            trial.report(row["validation"], before + row["epoch"] - 1)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            chosen = _trial_recipe(recipe, values)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".trial-") as place:
                fitted = fit_run(
                    None, None, out=Path(place) / "run", recipe=chosen, show=False, prepared=prepared, watch=watch
                )
        # Some is known only once model and data are there, such as how many layers there are; some rates learn nothing.
        except (RecipeError, TrainingError) as error:
            trial.set_user_attr("refused", str(error))
            raise optuna.TrialPruned from None
        assert fitted.training.best_metric is not None, "there is a validation part"
        return fitted.training.best_metric

    return objective


def _trials(study: "Study", *states: str) -> "list[FrozenTrial]":
    return [trial for trial in study.trials if trial.state.name in states]


def _reached(trial: "FrozenTrial") -> float | None:
    values = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    return max(values, default=None)


def _point(trial: "FrozenTrial") -> TrialPoint:
    reached = _reached(trial)
    assert reached is not None
    return TrialPoint(trial.number, reached, trial.state.name != "COMPLETE")


def _importance(study: "Study", whole: "list[FrozenTrial]") -> dict[str, float]:
    """By whole trials; empty where they are too few, or too alike, to tell."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len(whole) < _MIN_FOR_IMPORTANCE or len({trial.value for trial in whole}) < 2:
        return {}
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25))
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def _confirm(given: Recipe, found: Recipe, prepared: Prepared, folder: Path, n_seeds: int, show: bool) -> Confirmation:
    seeds = tuple(given.training.seed + 1 + n for n in range(n_seeds))
    values: dict[str, list[float]] = {"given": [], "found": []}
    with progress_bar("confirm", show) as bar:
        for seed in seeds:
            for name, recipe in (("given", given), ("found", found)):
                seeded = with_choices(recipe, {"training.seed": seed})
                # By what was fitted: after more trials, or for another worker, the best may be another recipe.
                out = folder / f"{name}-{seed}-{training_fingerprint(seeded, prepared)[:8]}"
                folder.mkdir(parents=True, exist_ok=True)
                with locked(out.with_suffix(".lock"), "confirm", wait=True):  # another worker may be at it
                    values[name].append(_fit_and_judge(seeded, prepared, out))
                bar(len(values["given"]) + len(values["found"]), 2 * n_seeds)
    return Confirmation(seeds, tuple(values["given"]), tuple(values["found"]))


def _fit_and_judge(recipe: Recipe, prepared: Prepared, out: Path) -> float:
    """The metric of what the run serves, on the test part; taken from the run where an earlier call has finished it."""
    from lmrec.workflows.judge import judge_run, own_name, read_table_of

    run = RunFolder(out)
    begun = run.record_file.exists()
    if not begun or run.read_record().get("status") != "trained":
        run = fit_run(None, None, out=out, recipe=recipe, show=False, prepared=prepared, resume=begun).run
    table = read_table_of(run)
    if table is None:
        table = judge_run(out, ('baselines.names=["popularity"]',), show=False).table
    return table.row(own_name(run)).metrics[recipe.evaluation.metric].value


def _stopped(study: "Study") -> str:
    n_done = len(_trials(study, "COMPLETE", "PRUNED"))
    return f"stopped; {n_done} finished trials are kept. The same command goes on from there"


def _require_optuna() -> None:
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise MissingExtraError("lmrec tune", "optuna", "tune")
