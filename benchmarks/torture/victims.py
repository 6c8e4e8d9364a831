"""Processes to be killed: each line on the input forks one; forking saves the seconds of importing everything.

`serve PORT` the service, as `lmrec serve` runs it, `swap` copies of the run promoted and rolled back without end, `update`
one `lmrec update --force`. The process id of the child is printed, and its exit code once it has ended.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import transformers.models.auto.tokenization_auto
import transformers.models.bert.modeling_bert  # noqa: F401  seconds to import, so before the first fork

import lmrec.workflows.update  # noqa: F401
from lmrec.artifacts.generation import finish_generation, new_generation_folder, promote, rollback
from lmrec.artifacts.run import open_run
from lmrec.errors import LmrecError
from lmrec.service.serve import serve
from lmrec.service.settings import ServiceSettings


def serve_run(run: Path, store: str, port: int) -> None:
    serve(ServiceSettings.for_run(run, store, port=port, threads=1, watch_s=0.05))


def swap_without_end(run: Path) -> None:
    """Generations that are copies of the run come and go; what no pointer needs any more is removed."""
    while True:
        fresh = new_generation_folder(run)
        for name in ("run.json", "recipe.toml"):
            shutil.copy(run / name, fresh / name)
        for name in ("data", "checkpoint", "vectors"):
            shutil.copytree(run / name, fresh / name, copy_function=os.link)  # whole files, no bytes
        name = finish_generation(fresh, "torture").name
        promote(run, name, "torture")
        rollback(run, "torture")
        shutil.rmtree(run / "generations" / name)


def update_once(run: Path, store: str) -> None:
    from lmrec.workflows.update import update_run

    update_run(run, store, force=True, overrides=["evaluation.n_bootstrap=20"], show=False)


def main() -> None:
    run, store, log = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    open_run(run)
    for line in sys.stdin:
        what, *rest = json.loads(line)
        child = os.fork()
        if child == 0:
            output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.dup2(output, 1)
            os.dup2(output, 2)
            try:
                match what:
                    case "serve":
                        serve_run(run, store, int(rest[0]))
                    case "swap":
                        swap_without_end(run)
                    case "update":
                        update_once(run, store)
                os._exit(0)
            except LmrecError as error:
                os.write(2, f"{what}: {error}\n".encode())
                os._exit(error.exit_code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
