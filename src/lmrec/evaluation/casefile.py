"""What a judgement leaves for later comparisons: where the relevant items of every case stood, for every row.

Ranks and not metrics are kept: each metric at each k follows from them, and they are a few bytes a case. The file is a
parquet of one row a case, with the form of the judgement in its metadata.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from lmrec.data.history import Cases
from lmrec.errors import DataError
from lmrec.evaluation.evaluator import Evaluation
from lmrec.evaluation.metrics import Ranks
from lmrec.evaluation.table import TableForm
from lmrec.fields import IntArray, Ragged

_METADATA_KEY = "lmrec.cases"
_USER, _CANDIDATES, _RANKS = "user_idx", "n_candidates", "ranks of "


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
        unfinished = path.with_name(f".{path.name}.tmp")
        pl.DataFrame(columns).write_parquet(unfinished, metadata={_METADATA_KEY: json.dumps(about)})
        unfinished.replace(path)

    @classmethod
    def from_parquet(cls, path: Path) -> Self:
        """Raises DataError where the file is damaged or of another kind."""
        try:
            about: dict[str, Any] = json.loads(pl.read_parquet_metadata(path).get(_METADATA_KEY, "null"))
            frame = pl.read_parquet(path)
            names = [name for name in frame.columns if name.startswith(_RANKS)]
            n_candidates = frame[_CANDIDATES].to_numpy()
            form = about.pop("form")
            return cls(
                form=TableForm(**{**form, "cuts": tuple(form["cuts"]), "excluded": tuple(form["excluded"])}),
                user_idx=frame[_USER].to_numpy(),
                ranks={name.removeprefix(_RANKS): _ranks(frame[name], n_candidates) for name in names},
                **about,
            )
        except (pl.exceptions.PolarsError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"no file of judged cases ({error}). Judge the run again: lmrec evaluate", file=path
            ) from error


def fingerprint_questions(cases: Cases, user_ids: Sequence[str], item_ids: Sequence[str]) -> str:
    """16 hex characters of users, instants, histories and relevant items, by their outside ids: two data sets that
    number their items differently but ask the same have the same."""
    users, items = np.asarray(user_ids, object), np.asarray(item_ids, object)
    digest = hashlib.sha256(np.ascontiguousarray(cases.instants, np.float64).tobytes())
    for names in (users[cases.user_idx], items[cases.history.values], items[cases.relevant.values]):
        digest.update("\x1f".join(names.tolist()).encode())
        digest.update(b"\x1e")
    for rows in (cases.history, cases.relevant):
        digest.update(np.ascontiguousarray(rows.offsets, np.int64).tobytes())
    return digest.hexdigest()[:16]


def _lists(rows: Ragged) -> pl.Series:
    """Each row as a list; none of them is empty."""
    flat = pl.DataFrame({"row": rows.row_of_value, "value": rows.values.astype(np.int32)})
    return flat.group_by("row", maintain_order=True).agg("value")["value"]


def _ranks(column: pl.Series, n_candidates: IntArray) -> Ranks:
    lengths = column.list.len().to_numpy().astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return Ranks(Ragged(column.explode().to_numpy(), offsets), n_candidates, lengths)
