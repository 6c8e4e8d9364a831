"""What the events of a run's log count, beside the log: whoever hears of later events reads it, and needs no recipe."""

import json
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import RunFolder
from lmrec.data.weighing import Weighing
from lmrec.errors import RunFolderError

WEIGHING_FILE: Final = "weighing.json"


def save_weighing(weighing: Weighing, data: Path) -> None:
    """Into a folder of data."""
    write_json(data / WEIGHING_FILE, json.loads(weighing.model_dump_json()))


def read_weighing(run: RunFolder) -> Weighing:
    """Raises RunFolderError where it is missing or damaged."""
    file = run.data / WEIGHING_FILE
    if not file.exists():
        raise RunFolderError(f"{file} is missing, so it is not known what later events count. Fit the run again")
    try:
        return Weighing.model_validate(read_json(file))
    except ValidationError as error:
        raise RunFolderError(f"{file} is damaged ({error.errors()[0]['msg']}). Fit the run again") from error
