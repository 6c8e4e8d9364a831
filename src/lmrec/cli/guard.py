"""From exceptions to one clear message and an exit code: 2 wrong input, 1 our fault, 130 interrupted."""

import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from lmrec.errors import LmrecError


class GuardedGroup(TyperGroup):
    """A command group whose commands never end in a bare traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LmrecError as error:
            _print_error(str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            _print_error("interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader of our output went away (`| head`): not an error. Python would complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (typer.Exit, typer.Abort):
            raise
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            if error.filename is None:
                raise
            _print_error(f"{error.filename}: {error.strerror}. Check that path and its rights")
            raise typer.Exit(2) from None
        except Exception as error:
            if type(error).__module__.startswith(("click", "typer")):
                raise  # usage errors have their own message and code 2
            traceback.print_exc()
            _print_error(f"this is our fault, not yours: {error!r}. Please report it with the lines above")
            raise typer.Exit(1) from None


def _print_error(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text("error: ", style="bold red") + Text(message))
