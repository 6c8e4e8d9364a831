"""Every error that lmrec raises on purpose. A message says the value, the rule and the way out.

LmrecError                  our fault unless a subclass says otherwise        exit code 1
|-- InputError              what we were given cannot be used                 exit code 2
|   |-- DataError           a table, with file and row where known
|   |-- RecipeError         a recipe or a --set value
|   |   `-- NoRoomError     what is never cut is longer than what is read
|   |-- RunFolderError      a run folder that is missing, foreign, unfinished or damaged
|   `-- UnknownIdError      an item or user that this run has never heard of
|-- MissingExtraError       an optional package is not installed              exit code 2
|-- TrainingError           learning went wrong (a loss that is not finite)   exit code 1
`-- Interrupted             Ctrl-C; what was done so far is saved             exit code 130
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LmrecError(Exception):
    """The root of the tree. `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(LmrecError):
    exit_code = 2


class DataError(InputError):
    """A table that cannot be used. `file` and `row` (1-based, the header is row 1 in text tables) go into the message."""

    def __init__(self, message: str, *, file: object | None = None, row: int | None = None) -> None:
        where = f"{file}" if file is not None else ""
        if row is not None:
            where += f", row {row}" if where else f"row {row}"
        super().__init__(f"{where}: {message}" if where else message)
        self.file = file
        self.row = row


class RecipeError(InputError):
    pass


class NoRoomError(RecipeError):
    pass


class RunFolderError(InputError):
    pass


class UnknownIdError(InputError):
    pass


class MissingExtraError(LmrecError):
    """An optional package is needed. The message says what to type."""

    exit_code = 2

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package '{package}', which is not installed. Type: pip install 'lmrec[{extra}]'"
        )


class TrainingError(LmrecError):
    pass


class Interrupted(LmrecError):
    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """A ready sentence that names the nearest known word, or lists a few; empty where nothing is known.

    >>> nearest("max_token", ["max_tokens", "pooling"])
    "Did you mean 'max_tokens'?"
    """
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Known: {', '.join(sorted(names)[:20])}." if names else ""
