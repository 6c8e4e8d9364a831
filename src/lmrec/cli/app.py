"""The command line. `lmrec --help` must answer at once, so each command imports what it needs when it runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from lmrec.cli.benching import add_benching
from lmrec.cli.comparing import add_comparing
from lmrec.cli.compressing import add_compressing
from lmrec.cli.ensembling import add_ensembling
from lmrec.cli.experimenting import add_experimenting
from lmrec.cli.guard import GuardedGroup
from lmrec.cli.indexing import add_indexing
from lmrec.cli.rate_finding import add_rate_finding
from lmrec.cli.reranking import add_reranking
from lmrec.cli.serving import add_serving
from lmrec.cli.show import print_data, print_json, print_notes, say
from lmrec.cli.souping import add_souping
from lmrec.cli.tuning import add_tuning
from lmrec.cli.updating import add_updating
from lmrec.cli.wording import add_wording

app = typer.Typer(
    cls=GuardedGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Fine-tune a pretrained language model on a catalog and a log of what users did; judge it; recommend with it.\n\n"
    "[bold]First steps[/bold]\n\n"
    "  lmrec fit --items items.csv --interactions events.csv --out runs/mine\n\n"
    "  lmrec recommend runs/mine --user 42\n\n"
    "Exit codes: 0 done, 2 wrong input, 1 our fault, 130 interrupted.",
)
data_app = typer.Typer(cls=GuardedGroup, no_args_is_help=True, help="List and fetch public data sets and models.")
app.add_typer(data_app, name="data")

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `lmrec fit --out` makes it.")]
ItemsOption = Annotated[
    Optional[Path],
    typer.Option("--items", help="Items: an id and any columns of words. csv, tsv, parquet, jsonl; plain or .gz."),
]
InteractionsOption = Annotated[
    Optional[Path],
    typer.Option("--interactions", help="Events: user, item, and a timestamp or a position. Same formats."),
]
SourceOption = Annotated[
    Optional[str],
    typer.Option(
        "--source",
        metavar="NAME",
        help="Instead of tables: an original format, with --path. amazon, lastfm, mind, movielens, retail, tables.",
    ),
]
PathOption = Annotated[
    Optional[Path],
    typer.Option("--path", metavar="FOLDER", help="Where the data of --source lies: folder, zip or file."),
]
UsersOption = Annotated[Optional[Path], typer.Option("--users", help="Users and their attributes. Same formats.")]
RecipeOption = Annotated[Optional[Path], typer.Option("--recipe", help="A TOML file of choices; all have defaults.")]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="KEY=VALUE", help="One choice, such as encoder.max_tokens=64. Repeatable."),
]
SplitOption = Annotated[
    Optional[str],
    typer.Option("--split", help="time, last, last_n, cold_items, cold_users, or none (learn from everything)."),
]
MapOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--map", metavar="OURS=THEIRS", help="Name a column that is not guessed, such as user_id=client. Repeatable."
    ),
]
UserOption = Annotated[Optional[str], typer.Option("--user", help="A user id.")]
HistoryOption = Annotated[
    Optional[str], typer.Option("--history", help="Item ids, oldest first, of somebody never seen: ID,ID,...")
]
RerankOption = Annotated[
    bool, typer.Option("--rerank/--no-rerank", help="Let the run's reranker, if it has one, read the best.")
]
NewItemsOption = Annotated[
    Optional[Path], typer.Option("--new-items", help="Items added after training: a table like --items of fit.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
KOption = Annotated[int, typer.Option("--k", "-k", help="How many to show.")]


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from lmrec import __version__

        typer.echo(f"lmrec {__version__}")
        raise typer.Exit


@app.command()
def prepare(
    items: ItemsOption = None,
    interactions: InteractionsOption = None,
    users: UsersOption = None,
    source: SourceOption = None,
    path: PathOption = None,
    out: Annotated[Optional[Path], typer.Option("--out", help="Also write the checked data to this folder.")] = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    split: SplitOption = None,
    map_: MapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read, check and split two tables, or a --source; say what is in them. Trains nothing."""
    from lmrec.cli.tables import Input, recipe_of
    from lmrec.workflows.prepare import save_prepared

    prepared = Input(items, interactions, users, source, path).prepare(
        recipe_of(recipe, set_, split, map_, "lmrec prepare")
    )
    if out is not None:
        save_prepared(prepared, out)
    if as_json:
        summary = prepared.summary.model_dump(mode="json")
        proof = prepared.split.proof.as_dict()
        print_json(
            {"summary": summary, "proof": proof, "notes": list(prepared.notes), "out": str(out) if out else None}
        )
        return
    print_data(prepared)
    if out is not None:
        say(f"Written to {out}; rows set aside are in {out / 'quarantine.csv'}")


@app.command()
def fit(
    out: Annotated[Path, typer.Option("--out", help="The run folder to make.")],
    items: ItemsOption = None,
    interactions: InteractionsOption = None,
    users: UsersOption = None,
    source: SourceOption = None,
    path: PathOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    split: SplitOption = None,
    map_: MapOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted fit of this --out stopped.")
    ] = False,
    judge: Annotated[
        bool, typer.Option("--judge/--no-judge", help="Judge against baselines and write the report afterwards.")
    ] = True,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fine-tune a language model on two tables, or on a --source, judge it, and write a run folder.

    Ctrl-C is safe: the run stays resumable. All choices of --set and their defaults: `lmrec recipe`.
    """
    from lmrec.cli.tables import Input, recipe_of

    data = Input(items, interactions, users, source, path)
    data.check()
    from lmrec.workflows.train import fit_run  # slow: only for a command line that makes sense

    chosen = recipe_of(recipe, set_, split, map_, "lmrec fit")
    prepared = data.prepare(chosen)
    if not as_json:
        print_data(prepared)
        if prepared.dataset.quarantine.height:
            say(f"All rows set aside: {out / 'data' / 'quarantine.csv'}")
    result = fit_run(
        items, interactions, users, out=out, recipe=chosen, resume=resume, show=not quiet, prepared=prepared
    )
    if not as_json:
        print_notes(result.notes[len(prepared.notes) :])
    if judge and len(prepared.split.test):
        _judge(out, (), not quiet, as_json)
    elif as_json:
        print_json({"run": str(out), **result.run.read_record()["training"]})
    say(f"Done. Next: lmrec recommend {out} --user {prepared.dataset.interactions.user_ids[0]}")


@app.command()
def evaluate(
    run: RunArgument,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Judge a run against tuned baselines, over the whole catalog; write evaluation.json and report.html.

    --set takes evaluation.*, baselines.*, split.target and reranker.judge_cases here.
    """
    _judge(run, set_ or (), not quiet, as_json)


@app.command()
def report(
    run: RunArgument, out: Annotated[Optional[Path], typer.Option("--out", help="Default: RUN/report.html.")] = None
) -> None:
    """Write the page about a judged run again."""
    from lmrec.workflows.report import report_run

    typer.echo(str(report_run(run, out)))


@app.command()
def recommend(
    run: RunArgument,
    user: UserOption = None,
    users: Annotated[
        Optional[Path], typer.Option("--users", help="A table with a column user_id, or a text file, an id a line.")
    ] = None,
    history: HistoryOption = None,
    profile: Annotated[
        Optional[str],
        typer.Option(
            "--profile",
            metavar="COLUMN=VALUE,...",
            help="What is known of somebody never seen, such as 'age=30,likes=jazz|tea': columns of user_model.profile. Alone "
            "or beside --history.",
        ),
    ] = None,
    text: Annotated[Optional[str], typer.Option("--text", help="Words: what somebody is looking for.")] = None,
    k: KOption = 10,
    include_seen: Annotated[
        Optional[bool],
        typer.Option(
            "--include-seen/--exclude-seen",
            help="Also items that the history holds, or none of them. Unset: as the run was judged (evaluation.exclude_seen).",
            show_default=False,
        ),
    ] = None,
    rerank: RerankOption = True,
    new_items: NewItemsOption = None,
    as_json: JsonOption = False,
    out: Annotated[
        Optional[Path], typer.Option("--out", help="Write user_id, item_id, rank, score: .csv, .parquet or .jsonl.")
    ] = None,
) -> None:
    """Recommend items to a user, to many users, to a history, to a profile, or to words. Needs only the run folder."""
    from lmrec.cli.recommending import Question, answer, load_recommender
    from lmrec.cli.show import print_recommendations
    from lmrec.cli.tables import writer_for

    question = Question(
        user=user,
        users=users,
        history=history,
        text=text,
        k=k,
        exclude_seen=None if include_seen is None else not include_seen,
        rerank=rerank,
        profile=profile,
    )
    write = writer_for(out) if out is not None else None  # a wrong ending is refused before any work
    answers = answer(load_recommender(run, new_items), question)
    if write is not None:
        write(answers)
    if as_json:
        from lmrec.retrieval.recommender import describe

        print_json({"recommendations": [describe(found) for found in answers]} if users else describe(answers[0]))
    elif write is None:
        print_recommendations(answers)
    else:
        say(f"{len(answers):,} lists written to {out}")


@app.command()
def rank(
    run: RunArgument,
    candidates: Annotated[
        str, typer.Option("--candidates", metavar="ID,ID,...", help="Items to put in order, 1,000 at most.")
    ],
    user: UserOption = None,
    history: HistoryOption = None,
    profile: Annotated[
        Optional[str],
        typer.Option(
            "--profile", metavar="COLUMN=VALUE,...", help="As `lmrec recommend` takes it, with or for --history."
        ),
    ] = None,
    rerank: RerankOption = True,
    new_items: NewItemsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put given items in order for a user, a history or a profile, whether they have been seen or not."""
    from lmrec.cli.recommending import load_recommender
    from lmrec.cli.recommending import rank as rank_for
    from lmrec.cli.show import print_recommendations
    from lmrec.retrieval.recommender import describe

    found = rank_for(load_recommender(run, new_items), candidates, user, history, profile, rerank)
    if as_json:
        print_json(describe(found))
    else:
        print_recommendations([found])


@app.command()
def audience(
    run: RunArgument,
    text: Annotated[Optional[str], typer.Option("--text", help="An item that exists only as words.")] = None,
    item: Annotated[Optional[str], typer.Option("--item", help="An item id of the catalog.")] = None,
    k: KOption = 10,
    as_json: JsonOption = False,
) -> None:
    """Who would want this? The known users who score an item, or mere words, highest."""
    from lmrec.cli.show import print_audience
    from lmrec.retrieval.recommender import Recommender

    found = Recommender.load(run).audience(text=text, item=item, k=k)
    if as_json:
        print_json({"users": [vars(user) for user in found]})
    else:
        print_audience(found)


@app.command()
def similar(
    run: RunArgument,
    item: Annotated[Optional[str], typer.Option("--item", help="An item id of the catalog.")] = None,
    text: Annotated[Optional[str], typer.Option("--text", help="Words.")] = None,
    k: KOption = 10,
    as_json: JsonOption = False,
) -> None:
    """The items nearest to an item or to words, as the tuned model sees them."""
    from lmrec.cli.show import print_items
    from lmrec.retrieval.recommender import Recommender

    found = Recommender.load(run).similar(item=item, text=text, k=k)
    if as_json:
        print_json({"items": [vars(entry) for entry in found]})
    else:
        print_items(found)


@app.command()
def inspect(run: RunArgument, as_json: JsonOption = False) -> None:
    """What a run folder holds: data, recipe, versions, result."""
    from lmrec.cli.inspecting import inspect_run

    inspect_run(run, as_json)


@app.command(name="recipe")
def show_recipe(as_json: JsonOption = False) -> None:
    """All choices that a recipe or --set can make, with defaults and effects."""
    from lmrec.cli.show import print_choices
    from lmrec.recipe import describe_keys

    rows = describe_keys()
    if as_json:
        print_json([{"key": key, "default": default, "effect": effect} for key, default, effect in rows])
    else:
        print_choices(rows)


@data_app.command("list")
def data_list(as_json: JsonOption = False) -> None:
    """Data sets, language models and word lists that can be fetched by name."""
    from lmrec.artifacts.pretrained import REGISTRY_MODELS
    from lmrec.cli.show import print_catalogue
    from lmrec.data.sources.registry import list_datasets

    rows = [
        ("data set" if entry.tables else "words", entry.name, entry.description, entry.terms)
        for entry in list_datasets()
    ]
    rows += [("model", name, model.about, model.requirement) for name, model in REGISTRY_MODELS.items()]
    if as_json:
        print_json([{"what": what, "name": name, "about": about, "terms": terms} for what, name, about, terms in rows])
    else:
        print_catalogue(rows)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="See `lmrec data list`.")],
    out: Annotated[Optional[Path], typer.Option("--out", help="Also write the tables as csv here.")] = None,
) -> None:
    """Fetch a data set or a language model into the cache and say where it lies.

    --out: also a data set's tables, for `lmrec fit`.
    """
    from lmrec.cli.fetching import export_tables, fetch

    folder = fetch(name)
    typer.echo(str(folder) if out is None else str(export_tables(name, folder, out)))


add_comparing(app)
add_ensembling(app)
add_souping(app)
add_indexing(app)
add_compressing(app)
add_rate_finding(app)
add_reranking(app)
add_benching(app)
add_serving(app)
add_updating(app)
add_wording(app)
add_tuning(app)
add_experimenting(app)


def _judge(run: Path, overrides: Sequence[str], show: bool, as_json: bool) -> None:
    from lmrec.cli.reranking import print_reranking
    from lmrec.cli.show import print_rich, print_table
    from lmrec.workflows.judge import judge_run
    from lmrec.workflows.report import report_run

    judgement = judge_run(run, overrides, show)
    page = report_run(run)
    if as_json:
        shown = judgement.impressions
        print_json(
            {
                "run": str(run),
                "table": judgement.table.as_dict(),
                **({"impressions": shown.as_dict()} if shown is not None else {}),
                **({"reranking": judgement.reranking.as_dict()} if judgement.reranking is not None else {}),
                "report": str(page),
            }
        )
    else:
        print_table(judgement.table)
        if judgement.impressions is not None:
            print_rich(judgement.impressions.rich())
        if judgement.reranking is not None:
            print_reranking(judgement.reranking)
        say(f"Report: {page}")


def run() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    run()
