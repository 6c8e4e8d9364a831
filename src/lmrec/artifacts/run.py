"""A run folder: it describes itself, and everything later reads it instead of flags.

run.json            versions, commit, seed, data fingerprint, status, timings, data summary, leak proof
recipe.toml         every choice, also those left at their default
data/               catalog.parquet, interactions.parquet, users.parquet, quarantine.csv, weighing.json
checkpoint/         the model, see checkpoint.py
vectors/            text and item vectors, with the fingerprints of what made them
index/              codes to search a large catalog by, see lmrec.retrieval.index; none where it is small
metrics.jsonl       one line an epoch, as tensorboard/ and wandb/ have it, see curves.py
training_state/     there while a training can be resumed, as is refit_state/
evaluation.json     the judge's table           report.html    the same with pictures
cases.parquet       where the relevant items of each judged case stood, for every row of that table
ensemble.json       for an ensemble of runs, in place of checkpoint/ and vectors/: see ensemble.py
reranker/           what puts the best of a list in order, where it was taught: see reranker.py
list_stack/         what orders candidates beside the model, where there were lists that were shown: see list_stack.py
reranking.json      the judge's table of that, and of single pairs
snapshots/1, ...    runs that share all but the towers, see snapshots.py; where training.snapshots asks for them
impressions.json    the judge's table of what was shown, where the data knows that
shown.parquet       what each of these lists was worth, for every row of that table
compression.json    what `lmrec compress` tried, where it made this run, and compression.png
"""

import platform
import subprocess
import time
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lmrec.artifacts.curves import Curves
from lmrec.artifacts.files import read_json, write_json
from lmrec.cores import free_cores
from lmrec.errors import RunFolderError

RUN_FORMAT = 1
_PACKAGES = ("lmrec", "torch", "transformers", "accelerate", "polars", "numpy", "scipy", "implicit")


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def record_file(self) -> Path:
        return self.path / "run.json"

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def vectors_file(self) -> Path:
        return self.path / "vectors" / "item_vectors.safetensors"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def frozen_towers_file(self) -> Path:
        return self.path / "checkpoint" / "frozen_stage.safetensors"

    @property
    def tuned_stage_file(self) -> Path:
        return self.path / "checkpoint" / "tuned_stage.safetensors"

    @property
    def training_state(self) -> Path:
        return self.path / "training_state"

    @property
    def refit_state(self) -> Path:
        """What resuming the last part of a training needs: learning again with the validation part."""
        return self.path / "refit_state"

    @property
    def curves(self) -> Curves:
        """What its trainings tell of themselves."""
        return Curves(self.path)

    @property
    def evaluation_file(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def ensemble_file(self) -> Path:
        return self.path / "ensemble.json"

    @property
    def member_paths(self) -> list[Path]:
        """The run folders inside an ensemble, in its order."""
        folders = [path for path in (self.path / "members").glob("*") if path.name.isdigit()]
        return sorted(folders, key=lambda path: int(path.name))

    @property
    def impressions_file(self) -> Path:
        return self.path / "impressions.json"

    @property
    def shown_file(self) -> Path:
        return self.path / "shown.parquet"

    @property
    def compression_file(self) -> Path:
        return self.path / "compression.json"

    @property
    def compression_picture(self) -> Path:
        return self.path / "compression.png"

    @property
    def reranker(self) -> Path:
        return self.path / "reranker"

    @property
    def list_stack(self) -> Path:
        return self.path / "list_stack"

    @property
    def reranker_state(self) -> Path:
        """What an interrupted `lmrec fit-reranker` goes on from."""
        return self.path / "reranker_state"

    @property
    def reranking_file(self) -> Path:
        return self.path / "reranking.json"

    @property
    def cases_file(self) -> Path:
        return self.path / "cases.parquet"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    def read_record(self) -> dict[str, Any]:
        record: dict[str, Any] = read_json(self.record_file)
        if record.get("format") != RUN_FORMAT:
            raise RunFolderError(
                f"{self.record_file} has format {record.get('format')!r}, this lmrec reads {RUN_FORMAT}. "
                "Open it with the lmrec that made it, or fit again"
            )
        return record

    def read_excludes_seen(self) -> bool:
        """Whether the run was judged with items of the history left out: `evaluation.exclude_seen` of its recipe."""
        try:
            evaluation = tomllib.loads(self.recipe_file.read_text(encoding="utf-8"))["evaluation"]
            return bool(evaluation["exclude_seen"])
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
            raise RunFolderError(
                f"{self.recipe_file} is missing or damaged ({type(error).__name__}: {error}). Fit the run again"
            ) from error

    def update_record(self, **values: Any) -> None:
        record = read_json(self.record_file) if self.record_file.exists() else {"format": RUN_FORMAT}
        write_json(self.record_file, {**record, **values})


def open_run(path: Path | str, *, trained: bool = True) -> RunFolder:
    """A run folder that exists; with `trained`, one whose training has finished."""
    run = RunFolder(Path(path))
    if not run.path.is_dir():
        raise RunFolderError(f"there is no run folder '{path}'. Make one with `lmrec fit ... --out {path}`")
    if not run.record_file.exists():
        raise RunFolderError(f"'{path}' holds no run.json, so it is no run folder. Make one with `lmrec fit`")
    if trained and (status := run.read_record().get("status")) != "trained":
        raise RunFolderError(f"the training in '{path}' is {status}. Finish it with the same fit command and --resume")
    return run


def create_run(path: Path | str, *, resume: bool) -> RunFolder:
    """A folder to fit into: empty or new, or with `resume` one that an interrupted fit left."""
    run = RunFolder(Path(path))
    if resume:
        return open_run(path, trained=False)
    check_new(path)
    try:
        run.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"'{path}' cannot be made ({error.strerror}). Choose another --out") from error
    return run


def check_new(path: Path | str) -> None:
    """Raises RunFolderError where something lies there already: to be asked before long work that ends in `create_run`."""
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(
            f"'{path}' exists and is not empty. Choose another --out, remove it, or continue it with --resume"
        )


def describe_made(source: RunFolder, note: str, without: Collection[str] = ()) -> dict[str, Any]:
    """What run.json of a run that was made of another one says first: what that one's does, but for `without`."""
    kept = {name: value for name, value in source.read_record().items() if name not in without}
    return {**kept, "created": instant(), "notes": [note], **describe_environment()}


def instant() -> str:
    """Now, in UTC, as run.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def describe_environment() -> dict[str, Any]:
    """Versions, commit and machine: what somebody needs to repeat a run."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version_of(name) for name in _PACKAGES}},
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {processor_name()}, {free_cores()} cores",
    }


def processor_name(file: Path = Path("/proc/cpuinfo")) -> str:
    """As the system names it. Linux tells family and model too, which tell apart processors of one name."""
    told = _cpu_facts(file)
    name = told.get("model name") or platform.processor() or platform.machine()
    return (
        f"{name} (family {told['cpu family']}, model {told['model']})"
        if {"cpu family", "model"} <= told.keys()
        else name
    )


def _cpu_facts(file: Path) -> dict[str, str]:
    """Of the first processor; empty where no such file is."""
    if not file.exists():
        return {}
    first = file.read_text(encoding="utf-8").partition("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


# What decides a result; tables of results that a measurement writes itself are no change of what is measured.
_CODE = (":(top)src", ":(top)recipes", ":(top)benchmarks/*.py", ":(top)pyproject.toml", ":(top)constraints.txt")


def _commit() -> str:
    """The commit of lmrec's own checkout, with "+changes" where code differs; "" for an installed package."""
    try:
        found = _git("describe", "--always", "--abbrev=12", "--exclude=*")
        tracked = _git("ls-files", "--error-unmatch", __file__)
        changed = _git("diff", "--quiet", "HEAD", "--", *_CODE)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # lmrec may be installed inside somebody else's repository, whose commit says nothing about it.
    if found.returncode or tracked.returncode:
        return ""
    return found.stdout.strip() + ("+changes" if changed.returncode else "")


def _git(*words: str) -> "subprocess.CompletedProcess[str]":
    here = Path(__file__).resolve().parent
    return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=False)
