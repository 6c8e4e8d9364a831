"""What a judgement leaves for later comparisons: where the relevant items of every case stood, for every row.

Ranks and not metrics are kept: each metric at each k follows from them, and they are a few bytes a case. The file is a
parquet of one row a case, with the form of the judgement in its metadata. Of lists that were shown, the values themselves are
kept in a file of their own.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from lmrec.data.history import Cases
from lmrec.errors import DataError
from lmrec.evaluation.evaluator import Evaluation
from lmrec.evaluation.impressions import ListEvaluation, ShownLists
from lmrec.evaluation.metrics import Ranks
from lmrec.evaluation.table import TableForm
from lmrec.fields import FloatArray, IntArray, Ragged

_CASES, _LISTS = "lmrec.cases", "lmrec.shown"  # keys of a file's metadata: what kind it is
_USER, _CANDIDATES, _RANKS = "user_idx", "n_candidates", "ranks of "
_OF = " of "


@dataclass(frozen=True, eq=False)
class JudgedCases:
    """B cases of one judgement.

    questions: a fingerprint of who was asked what, when, and after which history; equal where the cases are the same.
    data: the data set's fingerprint, to say why they are not. own: the row of the run's own model. user_idx: (B,).
    ranks: row name -> where its answers put what was relevant.
    """

    form: TableForm
    metric: str
    data: str
    questions: str
    own: str
    user_idx: IntArray
    ranks: dict[str, Ranks]

    @classmethod
    def of(
        cls, evaluations: Mapping[str, Evaluation], form: TableForm, metric: str, data: str, questions: str, own: str
    ) -> Self:
        """From the evaluations of one judgement, which asked the same cases."""
        cases = next(iter(evaluations.values())).cases
        ranks = {name: evaluation.ranks for name, evaluation in evaluations.items()}
        return cls(form, metric, data, questions, own, cases.user_idx, ranks)

    def save_parquet(self, path: Path) -> None:
        """The file under its name only once it is whole."""
        first = next(iter(self.ranks.values()))
        columns = {_USER: pl.Series(self.user_idx), _CANDIDATES: pl.Series(first.n_candidates.astype(np.int32))}
        columns |= {_RANKS + name: _lists(ranks.ranks) for name, ranks in self.ranks.items()}
        about = {
            "form": asdict(self.form),
            "metric": self.metric,
            "data": self.data,
            "questions": self.questions,
            "own": self.own,
        }
        _write(path, _CASES, columns, about)

    @classmethod
    def from_parquet(cls, path: Path) -> Self:
        """Raises DataError where the file is damaged or of another kind."""
        try:
            frame, about = _read(path, _CASES)
            names = [name for name in frame.columns if name.startswith(_RANKS)]
            n_candidates = frame[_CANDIDATES].to_numpy()
            form = about.pop("form")
            return cls(
                form=TableForm(**{**form, "cuts": tuple(form["cuts"]), "excluded": tuple(form["excluded"])}),
                user_idx=frame[_USER].to_numpy(),
                ranks={name.removeprefix(_RANKS): _ranks(frame[name], n_candidates) for name in names},
                **about,
            )
        except _DAMAGE as error:
            raise _damaged(path, "judged cases", error) from error


@dataclass(frozen=True, eq=False)
class JudgedLists:
    """I lists of one judgement of what was shown.

    sentence: what was asked, in words. questions, data, own: as of `JudgedCases`. user_idx: (I,). values: row name ->
    metric -> (I,), each a mean over lists in the table; F1 and accuracy are no such means and are not here.
    """

    sentence: str
    data: str
    questions: str
    own: str
    user_idx: IntArray
    values: dict[str, dict[str, FloatArray]]

    @classmethod
    def of(cls, evaluations: Iterable[ListEvaluation], sentence: str, data: str, questions: str, own: str) -> Self:
        """From the evaluations of one judgement, which asked the same lists."""
        found = list(evaluations)
        return cls(sentence, data, questions, own, found[0].groups, {one.name: one.metrics for one in found})

    def save_parquet(self, path: Path) -> None:
        """The file under its name only once it is whole."""
        columns = {_USER: pl.Series(self.user_idx)}
        for row, metrics in self.values.items():
            columns |= {f"{metric}{_OF}{row}": pl.Series(values) for metric, values in metrics.items()}
        about = {name: getattr(self, name) for name in ("sentence", "data", "questions", "own")}
        _write(path, _LISTS, columns, about)

    @classmethod
    def from_parquet(cls, path: Path) -> Self:
        """Raises DataError where the file is damaged or of another kind."""
        try:
            frame, about = _read(path, _LISTS)
            values: dict[str, dict[str, FloatArray]] = {}
            for name in frame.columns:
                metric, of, row = name.partition(_OF)
                if of:
                    values.setdefault(row, {})[metric] = frame[name].to_numpy()
            return cls(user_idx=frame[_USER].to_numpy(), values=values, **about)
        except _DAMAGE as error:
            raise _damaged(path, "judged lists", error) from error


def fingerprint_questions(cases: Cases, user_ids: Sequence[str], item_ids: Sequence[str]) -> str:
    """16 hex characters of users, instants, histories and relevant items, by their outside ids: two data sets that
    number their items differently but ask the same have the same."""
    return _fingerprint(cases.instants, cases.user_idx, (cases.history, cases.relevant), user_ids, item_ids)


def fingerprint_lists(lists: ShownLists, user_ids: Sequence[str], item_ids: Sequence[str]) -> str:
    """The same of lists that were shown: users, instants, histories, candidates, and which of them were clicked."""
    rows = lists.candidates.row_of_value[lists.clicked]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=len(lists)))])
    clicks = Ragged(lists.candidates.values[lists.clicked], ends)
    return _fingerprint(lists.time_ts, lists.user_idx, (lists.history, lists.candidates, clicks), user_ids, item_ids)


def _fingerprint(
    time_ts: FloatArray, user_idx: IntArray, rows: Sequence[Ragged], user_ids: Sequence[str], item_ids: Sequence[str]
) -> str:
    users, items = np.asarray(user_ids, object), np.asarray(item_ids, object)
    digest = hashlib.sha256(np.ascontiguousarray(time_ts, np.float64).tobytes())
    for names in (users[user_idx], *(items[one.values] for one in rows)):
        digest.update("\x1f".join(names.tolist()).encode())
        digest.update(b"\x1e")
    for one in rows:
        digest.update(np.ascontiguousarray(one.offsets, np.int64).tobytes())
    return digest.hexdigest()[:16]


_DAMAGE = (pl.exceptions.PolarsError, OSError, ValueError, TypeError, KeyError, AttributeError)


def _damaged(path: Path, what: str, error: Exception) -> DataError:
    return DataError(f"no file of {what} ({error}). Judge the run again: lmrec evaluate", file=path)


def _write(path: Path, kind: str, columns: Mapping[str, pl.Series], about: Mapping[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.tmp")
    pl.DataFrame(columns).write_parquet(unfinished, metadata={kind: json.dumps(about)})
    unfinished.replace(path)


def _read(path: Path, kind: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    about: dict[str, Any] = json.loads(pl.read_parquet_metadata(path).get(kind, "null"))
    return pl.read_parquet(path), about


def _lists(rows: Ragged) -> pl.Series:
    """Each row as a list; none of them is empty."""
    flat = pl.DataFrame({"row": rows.row_of_value, "value": rows.values.astype(np.int32)})
    return flat.group_by("row", maintain_order=True).agg("value")["value"]


def _ranks(column: pl.Series, n_candidates: IntArray) -> Ranks:
    lengths = column.list.len().to_numpy().astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return Ranks(Ragged(column.explode().to_numpy(), offsets), n_candidates, lengths)
