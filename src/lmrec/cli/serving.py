"""`lmrec serve`, `keys`, `rollback` and `generations`: thin over the service and over generation folders."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from lmrec.cli.guard import GuardedGroup
from lmrec.cli.show import print_json, print_rows, say

if TYPE_CHECKING:
    from lmrec.feedback.store import Store

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `lmrec fit --out` makes it.")]
StoreOption = Annotated[
    Optional[str],
    typer.Option(
        "--store",
        envvar="LMREC_STORE",
        help="Where events and changes are kept: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME. "
        "Default: RUN/service/store.db.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]

keys_app = typer.Typer(cls=GuardedGroup, no_args_is_help=True, help="Keys of the service: add, list, revoke.")


def add_serving(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(serve)
    app.command()(generations)
    app.command()(rollback)
    app.add_typer(keys_app, name="keys")


def serve(
    run: RunArgument,
    host: Annotated[str, typer.Option("--host", help="Other than loopback only once there are keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    store: StoreOption = None,
    rules: Annotated[
        Optional[Path], typer.Option("--rules", help="A TOML or JSON file of rules, read again when it changes.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes that answer.")] = 1,
    rate: Annotated[float, typer.Option("--rate", min=1, help="Requests a second of one key or address.")] = 2_000.0,
    keep_lists: Annotated[
        float, typer.Option("--keep-lists", metavar="DAYS", min=0, help="How long shown lists are kept; 0: for ever.")
    ] = 90.0,
    update_every: Annotated[
        Optional[float],
        typer.Option(
            "--update-every", metavar="HOURS", min=0.001, help="Also `lmrec update` this often, beside serving."
        ),
    ] = None,
) -> None:
    """Put a run behind HTTP: recommend, take events and new items, explain. The console is at the address printed.

    Ctrl-C or SIGTERM finishes what was begun. What can be set beyond this: docs/operations.md.
    """
    with _objects_that_stay():
        from lmrec.service.schedule import scheduled_updates
        from lmrec.service.serve import serve as serve_settings
        from lmrec.service.settings import Limits, ServiceSettings

    settings = ServiceSettings.for_run(
        run,
        store,
        host=host,
        port=port,
        rules=rules,
        workers=workers,
        keep_lists_days=keep_lists,
        limits=Limits(rate_per_s=rate, rate_burst=int(2 * rate)),
    )
    with scheduled_updates(run, settings.store, update_every):
        serve_settings(settings, lambda address: say(f"Serving {run} at {address}"))


@contextmanager
def _objects_that_stay() -> Iterator[None]:
    """For imports. What they make stays, and to look again and again for what of it could go takes a quarter of their time;
    later collections pass it over."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def generations(run: RunArgument, as_json: JsonOption = False) -> None:
    """What this run can serve, and what it does serve."""
    from lmrec.artifacts.generation import list_generations
    from lmrec.artifacts.run import open_run

    open_run(run)
    found = list_generations(run)
    if as_json:
        print_json(
            {
                "generations": [
                    {
                        "name": info.name,
                        "created": info.created,
                        "why": info.why,
                        "serving": info.serving,
                        "metrics": info.metrics,
                    }
                    for info in found
                ]
            }
        )
        return
    print_rows(
        "Generations",
        [(f"{info.name}{' (served)' if info.serving else ''}", f"{info.created}  {info.why}") for info in found],
    )


def rollback(
    run: RunArgument,
    why: Annotated[str, typer.Option("--why", help="Kept beside the pointer and in the audit table.")] = "by hand",
    store: StoreOption = None,
) -> None:
    """Serve again what was served before. A running service follows within a second; no request fails."""
    from lmrec.artifacts.generation import rollback as go_back
    from lmrec.feedback.database import parse_address
    from lmrec.feedback.store import note_done
    from lmrec.service.settings import default_store

    address = store or default_store(run)
    if store is not None:
        parse_address(store)
    name = go_back(run, why)
    typer.echo(f"generation {name} is served now")
    if store is None and not (run / "service" / "store.db").exists():
        say(
            "Nothing is noted of it: this run has no store here. Where its service has another one, name it with --store"
        )
        return
    # A store that is away must not keep anybody from going back.
    if (error := note_done(address, "command line", "rollback", name, {"why": why})) is not None:
        say(f"The audit table has no note of it: {error}")


@keys_app.callback(invoke_without_command=False)
def keys(context: typer.Context, run: RunArgument, store: StoreOption = None) -> None:
    """Keys of the service: `lmrec keys RUN add NAME --scope read`."""
    from lmrec.artifacts.run import open_run

    open_run(run)
    context.obj = (run, store)


@keys_app.command("add")
def add_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, such as 'shop'.")],
    scope: Annotated[list[str], typer.Option("--scope", help="read, events or admin. Repeatable.")],
) -> None:
    """Make a key. It is printed this once; only a hash is kept."""
    from typing import cast

    from lmrec.feedback.store import Scope

    with _open(context) as store:
        first = not store.has_keys()
        typer.echo(store.add_key(name, [cast(Scope, entry) for entry in scope], by="command line"))
    say("This is the only time that the key is shown. Send it as 'Authorization: Bearer KEY'.")
    if first:
        say("From now on every request to the service needs a key.")


@keys_app.command("list")
def list_keys(context: typer.Context, as_json: JsonOption = False) -> None:
    """All keys, revoked ones too; not the secrets, which are not kept."""
    with _open(context) as store:
        found = store.keys()
    if as_json:
        print_json({"keys": [row.as_dict() for row in found]})
        return
    rows = [
        (row.key_id, f"{row.name}: {', '.join(row.scopes)}{' (revoked)' if row.revoked_ts is not None else ''}")
        for row in found
    ]
    print_rows("Keys", rows or [("none", "only this machine is answered")])


@keys_app.command("revoke")
def revoke_key(
    context: typer.Context, key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="See `lmrec keys RUN list`.")]
) -> None:
    """Refuse a key from now on."""
    from lmrec.errors import UnknownIdError

    with _open(context) as store:
        if not store.revoke_key(key_id, by="command line"):
            raise UnknownIdError(f"there is no key '{key_id}' in force. `lmrec keys RUN list` shows all")
    say(f"{key_id} is refused from now on; a running service notices within a second")


def _open(context: typer.Context) -> "Store":
    from lmrec.feedback.store import Store
    from lmrec.service.settings import default_store

    run, store = context.obj
    return Store.open(store or default_store(run))
