"""`lmrec experiment`: two generations side by side, and what came of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from lmrec.cli.guard import GuardedGroup
from lmrec.cli.show import print_grid, print_json, print_rows, say
from lmrec.cli.updating import StoreOption

if TYPE_CHECKING:
    from lmrec.feedback.experiments import ExperimentRow

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that is served.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the experiment.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]

experiment_app = typer.Typer(
    cls=GuardedGroup, no_args_is_help=True, help="Two generations side by side: start, show, end, list, compare."
)


def add_experimenting(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(experiment_app, name="experiment")


@experiment_app.callback(invoke_without_command=False)
def experiment(context: typer.Context, run: RunArgument, store: StoreOption = None) -> None:
    """Two generations side by side: `lmrec experiment RUN start NAME --generation 0001`."""
    from lmrec.artifacts.run import open_run

    open_run(run)
    context.obj = (run, store)


@experiment_app.command("start")
def start(
    context: typer.Context,
    name: NameArgument,
    generation: Annotated[str, typer.Option("--generation", help="The challenger; see `lmrec generations RUN`.")],
    share: Annotated[float, typer.Option("--share", min=0, max=1, help="Of users, for the challenger.")] = 0.5,
    shadow: Annotated[
        bool,
        typer.Option("--shadow", help="Ask the challenger too, for the share of users, and show nobody its lists."),
    ] = False,
) -> None:
    """What is served against another generation. A running service deals its users within a moment; each keeps their arm."""
    from lmrec.workflows.experiments import start_experiment

    run, store = context.obj
    made = start_experiment(run, name, generation, url=store, share=share, mode="shadow" if shadow else "split")
    arms = ", ".join(f"{arm.name}: generation {arm.generation} ({arm.share:.0%})" for arm in made.arms)
    say(f"{name} runs ({made.mode}). {arms}")


@experiment_app.command("end")
def end(
    context: typer.Context,
    name: NameArgument,
    why: Annotated[str, typer.Option("--why", help="Kept with the experiment.")],
    promote: Annotated[bool, typer.Option("--promote", help="Serve the challenger to everybody.")] = False,
) -> None:
    """Everybody is answered by one generation again."""
    from lmrec.artifacts.generation import read_serving
    from lmrec.workflows.experiments import end_experiment

    run, store = context.obj
    end_experiment(run, name, why, url=store, promote_challenger=promote)
    say(f"{name} has ended; generation {read_serving(run)} is served to everybody")


@experiment_app.command("list")
def list_all(context: typer.Context, as_json: JsonOption = False) -> None:
    """All experiments, the newest first."""
    from lmrec.workflows.experiments import list_experiments

    found = list_experiments(*context.obj)
    if as_json:
        print_json({"experiments": [_described(row) for row in found]})
        return
    rows = [
        (row.experiment.name, f"{row.experiment.mode}, {'running' if row.is_running else row.why}") for row in found
    ]
    print_rows("Experiments", rows or [("none", "lmrec experiment RUN start NAME --generation 0001")])


@experiment_app.command("show")
def show(context: typer.Context, name: NameArgument, as_json: JsonOption = False) -> None:
    """What an experiment says so far. To look changes nothing: go by the p value that holds however often one looks."""
    from lmrec.workflows.experiments import show_experiment

    run, store = context.obj
    row, found = show_experiment(run, name, store)
    if as_json:
        print_json({**_described(row), **found})
    elif found["split"] is not None:
        _print_split(found["split"])
    else:
        _print_shadow(found["shadow"])


@experiment_app.command("compare")
def compare(
    context: typer.Context,
    days: Annotated[float, typer.Option("--days", min=0.01, help="Lists of the last days.")] = 30.0,
    against: Annotated[
        Optional[str], typer.Option("--against", help="The arm or generation to compare with. Default: the first.")
    ] = None,
    effect: Annotated[float, typer.Option("--effect", min=0.001, help="The relative gain that would matter.")] = 0.05,
    as_json: JsonOption = False,
) -> None:
    """All lists lately, by the arm in their context (yours, or an experiment's), else by generation: also where they did not
    run side by side."""
    from lmrec.workflows.experiments import compare_lists

    run, store = context.obj
    found = compare_lists(run, store, days=days, against=against, effect=effect).as_dict()
    if as_json:
        print_json(found)
    else:
        _print_split(found)


def _described(row: "ExperimentRow") -> dict[str, Any]:
    return {
        **row.experiment.as_dict(),
        "running": row.is_running,
        "started": row.started_ts,
        "started_by": row.started_by,
        "ended": row.ended_ts,
        "ended_by": row.ended_by,
        "why": row.why,
    }


def _print_split(found: Mapping[str, Any]) -> None:
    rows = [
        (
            arm["arm"],
            f"{arm['lists']:,}",
            f"{arm['users']:,}",
            f"{arm['rate']:.2%}",
            f"{arm['low']:.2%} to {arm['high']:.2%}",
        )
        for arm in found["arms"]
    ]
    print_grid("Lists that led to something", ("arm", "lists", "users", "rate", "95 % interval"), rows)
    print_rows(
        "Differences",
        [
            (
                f"{one['arm']} against {one['against']}",
                f"{one['mean']:+.2%} ({one['low']:+.2%} to {one['high']:+.2%}), p {one['p']:.3f}, however often looked at "
                f"{one['p_always']:.3f}{': clear' if one['is_clear'] else ': could be chance'}",
            )
            for one in found["differences"]
        ],
    )
    _say_warnings(found)


def _say_warnings(found: Mapping[str, Any]) -> None:
    for warning in found["warnings"]:
        say(f"note: {warning}")


def _print_shadow(found: Mapping[str, Any]) -> None:
    times = [
        (f"time of {who}", f"median {found[key]['p50_ms']} ms, 95 % below {found[key]['p95_ms']} ms")
        for who, key in (("what is shown", "shown_times"), ("the shadow", "shadow_times"))
        if found[key] is not None
    ]
    print_rows(
        "What the shadow would have shown",
        [
            ("lists", f"{found['lists']:,}, of which {found['compared']:,} with the shadow"),
            ("overlap", f"{found['overlap']:.1%} ({found['overlap_low']:.1%} to {found['overlap_high']:.1%})"),
            ("same item first", f"{found['same_first']:.1%}"),
            ("would have kept", f"{found['kept']:,} of {found['followed']:,} items that something came of"),
            *times,
        ],
    )
    _say_warnings(found)
