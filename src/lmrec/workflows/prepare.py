"""Read, check and split: everything before the first tensor."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from lmrec.artifacts.files import replaced_folder, write_json
from lmrec.artifacts.weighing import save_weighing
from lmrec.data.dataset import Dataset
from lmrec.data.interactions import Interactions
from lmrec.data.sources.formats import read_source
from lmrec.data.sources.tables import TablesConfig, read_dataset
from lmrec.data.split import Split, SplitConfig, split_interactions
from lmrec.data.summary import DataSummary, summarize
from lmrec.data.users import learn_vocabulary
from lmrec.errors import RunFolderError
from lmrec.recipe import Recipe
from lmrec.text.template import build_template
from lmrec.text.users import UserTemplate


@dataclass(frozen=True, eq=False)
class Prepared:
    """`notes`: sentences for a person, from reading and from splitting."""

    dataset: Dataset
    split: Split
    summary: DataSummary
    notes: tuple[str, ...]


def prepare(items: object, interactions: object, users: object | None, recipe: Recipe) -> Prepared:
    """Tables (paths or data frames) -> checked data, its split and a summary. Raises DataError, InputError."""
    return prepare_dataset(read_dataset(items, interactions, users, recipe.data), recipe)


def prepare_source(name: str, path: Path | str, recipe: Recipe) -> Prepared:
    """A data set in its original format, by the name of the format. Raises DataError, InputError."""
    return prepare_dataset(read_source(name, path, recipe.data), recipe, name)


def _of_others(config: TablesConfig, source: str) -> tuple[str, ...]:
    """Notes on choices that other formats than this one are read by."""
    chosen = config.model_dump(exclude_defaults=True)
    return tuple(
        f"data.{key} changes nothing here: it is of --source {only}"
        for key, only in (("language", "mind"), ("secret_tags", "lastfm"))
        if key in chosen and source != only
    )


def words_that_tell(data: TablesConfig, split: SplitConfig) -> tuple[str, ...]:
    """What is wrong where artists that are held out keep the tags that the user who is asked gave them."""
    n_held = {"last": 2, "last_n": 2 * split.n, **({} if split.validation else {"none": 0})}.get(split.kind)
    if n_held is not None and n_held <= data.secret_tags:
        return ()
    way = f"set data.secret_tags to {n_held}" if n_held else "use split.kind 'last', or 'last_n'"
    return (
        f"what users said of their newest {data.secret_tags} artists is not among the words (data.secret_tags), and split "
        f"'{split.kind}' holds out others, whose tags tell their answers in part: {way}",
    )


def prepare_dataset(dataset: Dataset, recipe: Recipe, source: str = "") -> Prepared:
    """source: the name of the format that it was read from; empty: none, or it is not known."""
    build_template(recipe.template, dataset.catalog).check(dataset.catalog.frame.columns)
    of_users, user_ids = UserTemplate(recipe.template.user), dataset.interactions.user_ids
    of_users.check(dataset.users, "template.user")
    vocabulary = learn_vocabulary(dataset.users, recipe.user_model.profile)
    profiles = vocabulary.profiles(dataset.users, user_ids, of_users.words_of(dataset.users, user_ids))
    dataset = replace(dataset, interactions=replace(dataset.interactions, profiles=profiles))
    reach = () if dataset.users is None else vocabulary.reach_notes(dataset.users, user_ids)
    config, notes = choose_split(dataset, recipe.split)
    tie_share = dataset.interactions.tie_share
    if config.kind in ("last", "last_n") and tie_share:
        dataset = replace(dataset, interactions=dataset.interactions.in_given_order())
        notes = (
            *notes,
            f"{tie_share:.1%} of events share user and time with another: which is the last, the table's order says",
        )
    if config.kind == "none" and not recipe.refits:
        config = config.model_copy(update={"validation": 0.0})  # what is held out would never be learnt
    split = split_log(dataset.interactions, dataset.catalog.n_items, recipe, config)
    if config.kind == "none" and len(split.validation):
        n_newest = len(split.train_and_validation) - len(split.train)
        notes = (*notes, f"the newest {n_newest:,} events choose epochs and weights; then all events are learnt")
    # Of the log as it was given.
    weaknesses = (*split.proof.weaknesses, *(words_that_tell(recipe.data, config) if source == "lastfm" else ()))
    split = replace(split, proof=replace(split.proof, tie_share=tie_share, weaknesses=weaknesses))
    summary = summarize(dataset, split).model_copy(update={"tie_share": tie_share})
    return Prepared(dataset, split, summary, (*dataset.notes, *_of_others(recipe.data, source), *reach, *notes))


def split_log(interactions: Interactions, n_items: int, recipe: Recipe, config: SplitConfig | None = None) -> Split:
    """The recipe's split, or another one for its lists: where they may show items of the history, those are right answers."""
    return split_interactions(interactions, n_items, config or recipe.split, repeats=not recipe.evaluation.exclude_seen)


def choose_split(dataset: Dataset, config: SplitConfig) -> tuple[SplitConfig, tuple[str, ...]]:
    """The split asked for; where none was asked for and the log only has an order within each user, leave-last-out."""
    if dataset.interactions.time_kind == "position" and "kind" not in config.model_fields_set:
        note = (
            "The events have an order but no time, so they cannot be split by time: each user's last event is held out "
            "(--split last). Give a timestamp for the stricter test"
        )
        return config.model_copy(update={"kind": "last"}), (note,)
    return config, ()


def made_split(prepared: Prepared, recipe: Recipe) -> SplitConfig:
    """The recipe's split as it was made, which the log and the rest of the recipe may have decided: who reads the run later
    must split alike, and never find a validation part in what was learnt."""
    kind = prepared.split.kind
    without = {"validation": 0.0} if kind == "none" and not len(prepared.split.validation) else {}
    return recipe.split.model_copy(update={"kind": kind, **without})


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Catalog, interactions and what they weigh, users, impressions and quarantine, as files a run can be rebuilt from."""
    with replaced_folder(folder) as fresh:
        dataset.catalog.save_parquet(fresh / "catalog.parquet")
        dataset.interactions.save_parquet(fresh / "interactions.parquet")
        save_weighing(dataset.weighing, fresh)
        if dataset.users is not None:
            dataset.users.save_parquet(fresh / "users.parquet")
        if dataset.impressions is not None:
            dataset.impressions.save_parquet(fresh / "impressions.parquet")
        dataset.quarantine.write_csv(fresh / "quarantine.csv")


def save_prepared(prepared: Prepared, folder: Path) -> None:
    """The data, and beside it `summary.json` and `proof.json`, for a look before any training.

    Only an empty folder, or one that an earlier call made, is written to: nothing of anybody else is replaced.
    """
    ours = folder.is_dir() and (folder / "proof.json").exists() and (folder / "catalog.parquet").exists()
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"'{folder}' exists and was not made by `lmrec prepare`. Choose another --out")
    save_dataset(prepared.dataset, folder)
    write_json(folder / "summary.json", json.loads(prepared.summary.model_dump_json()))
    write_json(folder / "proof.json", prepared.split.proof.as_dict())
