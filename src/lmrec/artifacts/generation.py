"""Generations: what can be served, and the one pointer file that names what is.

Generation "0" is the run itself; later ones are run folders RUN/generations/0001 and on. RUN/serving.json names the one
that is served and those served before it; without that file it is generation 0. A generation appears under its name
only when it is whole, and the pointer changes by one rename: a reader sees the old one or the new one.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmrec.artifacts.files import read_json
from lmrec.artifacts.run import RunFolder, open_run
from lmrec.artifacts.weighing import read_weighing
from lmrec.errors import RunFolderError, UnknownIdError

FIRST = "0"
POINTER_FORMAT = 1
_NAME = re.compile(r"0|[0-9]{4,9}")
_FRESH = re.compile(r"\.([0-9]{4,9})\.new")
_NUMBERED = re.compile(r"\.?([0-9]{4,9})(?:\.new)?")
_DESCRIPTION = "generation.json"
_MAX_TRAIL = 100
_TABLES = ("catalog.parquet", "interactions.parquet")
_JUDGED = ("ndcg@10", "recall@10", "mrr@10")


@dataclass(frozen=True)
class GenerationInfo:
    """`created` is ISO 8601 UTC; `metrics` what was measured before it was promoted (of generation 0: by the judge)."""

    name: str
    path: Path
    created: str
    why: str
    serving: bool
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Pointer:
    """What serving.json says. `trail`: the generations served before, oldest first; the last one is `previous`."""

    generation: str = FIRST
    trail: tuple[str, ...] = ()
    since: str | None = None
    why: str = ""

    @property
    def previous(self) -> str | None:
        return self.trail[-1] if self.trail else None


def pointer_file(run: Path | str) -> Path:
    return Path(run) / "serving.json"


def generation_path(run: Path | str, name: str) -> Path:
    """Where a generation lies, whether or not it is there."""
    return Path(run) if name == FIRST else Path(run) / "generations" / name


def read_pointer(run: Path | str) -> Pointer:
    """What serving.json says, whether or not that generation is there. Raises RunFolderError where it is damaged."""
    file = pointer_file(run)
    if not file.exists():
        return Pointer()
    try:
        values = read_json(file)
        if values["format"] != POINTER_FORMAT:
            raise ValueError(f"format {values['format']!r}, this lmrec reads {POINTER_FORMAT}")
        trail = [str(name) for name in values["trail"]]
        pointer = Pointer(str(values["generation"]), tuple(trail), values["since"], str(values["why"]))
        for name in (pointer.generation, *trail):
            _check_name(name)
    except (RunFolderError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{file} is damaged ({error}). Type `lmrec rollback {run}` to serve generation 0, the run as it was fitted"
        ) from error
    return pointer


def read_serving(run: Path | str) -> str:
    """The name of the generation to serve. Raises RunFolderError where the pointer or what it names is damaged.

    A pointer that moves on meanwhile is followed: what it named before may be on its way out, half of it gone.
    """
    name = read_pointer(run).generation
    while True:
        try:
            _check_whole(run, name)
        except RunFolderError:
            before, name = name, read_pointer(run).generation
            if name == before:
                raise
        else:
            return name


def check_servable(run: Path | str, name: str) -> None:
    """Raises UnknownIdError where there is no generation of this name, and RunFolderError where it is damaged."""
    if name not in _names(run):
        raise UnknownIdError(f"there is no generation '{name}' of '{run}'. See `lmrec generations {run}`")
    _check_whole(run, name)


def list_generations(run: Path | str) -> list[GenerationInfo]:
    """All finished generations, oldest first; the run itself is the first. A damaged pointer serves none of them."""
    try:
        serving: str | None = read_pointer(run).generation
    except RunFolderError:
        serving = None
    return [_describe(run, name, serving) for name in _names(run)]


def how_far(folder: RunFolder) -> tuple[int, int]:
    """Up to which event and which item version of the store this generation has learnt; 0 for a run as it was fitted."""
    update: dict[str, Any] = folder.read_record().get("update", {})
    return int(update.get("store_seq", 0)), int(update.get("items_version", 0))


def promote(run: Path | str, name: str, why: str) -> None:
    """Serve generation `name` from now on. Raises RunFolderError where it is missing or damaged; then nothing changes."""
    _check_name(name)
    _check_whole(run, name)
    pointer = read_pointer(run)
    if pointer.generation != name:
        trail = (*pointer.trail, pointer.generation)[-_MAX_TRAIL:]
        _write_pointer(run, Pointer(name, trail, _now(), why))


def rollback(run: Path | str, why: str) -> str:
    """Serve again what was served before, and return its name; a second rollback goes one further back.

    Generations that are gone are passed over. A damaged pointer is replaced by one to generation 0. Raises
    RunFolderError where there is nothing to go back to.
    """
    open_run(run)
    try:
        pointer = read_pointer(run)
    except RunFolderError:
        pointer = Pointer("", (FIRST,))
    trail = list(pointer.trail)
    while trail:
        name = trail.pop()
        if name != pointer.generation and _is_whole(run, name):
            _write_pointer(run, Pointer(name, tuple(trail), _now(), why))
            return name
    raise RunFolderError(
        f"generation {pointer.generation} of '{run}' is served and none was before it, so there is nothing to go back to. "
        f"See `lmrec generations {run}`"
    )


def new_generation_folder(run: Path | str) -> Path:
    """An empty folder to fill, under a temporary name; `finish_generation` gives it its own, `discard_generation` undoes it."""
    folder = open_run(run).path / "generations"
    try:
        folder.mkdir(exist_ok=True)
        numbers = [int(match.group(1)) for entry in folder.iterdir() if (match := _NUMBERED.fullmatch(entry.name))]
        while True:
            number = max(numbers, default=0) + 1
            fresh = folder / f".{number:04d}.new"
            try:
                fresh.mkdir()
            except FileExistsError:  # another update took this number a moment ago
                numbers.append(number)
                continue
            return fresh
    except OSError as error:
        raise RunFolderError(
            f"no new generation can be made in {folder} ({error.strerror}). Free or unlock the disk"
        ) from error


def finish_generation(path: Path, why: str = "", metrics: Mapping[str, Any] | None = None) -> Path:
    """Give a filled folder its name, once all of it has reached the disk. It is not served until it is promoted."""
    match = _FRESH.fullmatch(path.name)
    if match is None:
        raise RunFolderError(f"{path} was not made by new_generation_folder, or is finished already")
    open_run(path)
    description = {"format": POINTER_FORMAT, "created": _now(), "why": why, "metrics": dict(metrics or {})}
    _write_durably(path / _DESCRIPTION, description)
    for entry in sorted(path.rglob("*")):
        _sync(entry)
    _sync(path)
    finished = path.with_name(match.group(1))
    os.rename(path, finished)
    _sync(finished.parent)
    return finished


def discard_generation(path: Path) -> None:
    """Remove a folder of `new_generation_folder` that was not finished."""
    if _FRESH.fullmatch(path.name):
        shutil.rmtree(path)


def _names(run: Path | str) -> list[str]:
    folder = Path(run) / "generations"
    numbered = [entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name)] if folder.is_dir() else []
    return [FIRST, *sorted((name for name in numbered if name != FIRST), key=int)]


def _describe(run: Path | str, name: str, serving: str | None) -> GenerationInfo:
    path = generation_path(run, name)
    if name == FIRST:
        created = str(open_run(run, trained=False).read_record().get("created", ""))
        return GenerationInfo(
            name, path, created, "the run as it was fitted", serving == name, _judged(RunFolder(path))
        )
    try:
        values = read_json(path / _DESCRIPTION)
        created, why, metrics = str(values["created"]), str(values["why"]), dict(values["metrics"])
    except (RunFolderError, KeyError, TypeError, ValueError):
        created, why, metrics = "", f"{path / _DESCRIPTION} is missing or damaged", {}
    return GenerationInfo(name, path, created, why, serving == name, metrics)


def _judged(run: RunFolder) -> dict[str, Any]:
    """What the judge measured of the run's own model (the last row that is no baseline); nothing where it cannot be read."""
    if not run.evaluation_file.exists():
        return {}
    try:
        own = [row["metrics"] for row in read_json(run.evaluation_file)["rows"] if not row["is_baseline"]]
        return {name: float(own[-1][name]["value"]) for name in _JUDGED if own and name in own[-1]}
    except (RunFolderError, KeyError, TypeError, ValueError):
        return {}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RunFolderError(f"'{name}' is no generation; they are called 0, 0001, 0002 and so on")


def _is_whole(run: Path | str, name: str) -> bool:
    try:
        _check_whole(run, name)
    except RunFolderError:
        return False
    return True


def _check_whole(run: Path | str, name: str) -> None:
    """Is all there that a recommender reads? The contents are checked when it reads them. Raises RunFolderError."""
    try:
        folder = open_run(generation_path(run, name))
        needed = [folder.data / file for file in _TABLES]
        models = [folder]
        if folder.ensemble_file.exists():
            models = [RunFolder(path) for path in folder.member_paths]
            needed += [folder.path / "members" / "0", *(model.data / file for model in models for file in _TABLES)]
        for model in models:
            needed += [model.checkpoint / "checkpoint.json", model.vectors_file]
        missing = [file for file in needed if not file.exists()]
        if missing:
            raise RunFolderError(f"{missing[0]} is missing")
        for model in models:
            read_weighing(model)
    except RunFolderError as error:
        if name == FIRST:
            raise
        raise RunFolderError(
            f"generation {name} of '{run}' cannot be served ({error}). Type `lmrec rollback {run}` to serve the one before it"
        ) from error


def _write_pointer(run: Path | str, pointer: Pointer) -> None:
    values = {
        "format": POINTER_FORMAT,
        "generation": pointer.generation,
        "previous": pointer.previous,
        "trail": list(pointer.trail),
        "since": pointer.since,
        "why": pointer.why,
    }
    try:
        _write_durably(pointer_file(run), values)
    except OSError as error:
        raise RunFolderError(
            f"{pointer_file(run)} cannot be written ({error.strerror}); what is served stays as it was. "
            "Free or unlock the disk"
        ) from error


def _write_durably(file: Path, value: Any) -> None:
    """As files.write_json does it, and on the disk before the name changes: a power cut leaves the old or the new."""
    fresh = file.with_name(f".{file.name}.new")
    with fresh.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(fresh, file)
    _sync(file.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
