"""RecTools' SASRec and UniSRec: one training each call, in an environment of their own. Run as a file, with a job.

It knows of lmrec only the folder that `exchange.py` writes and, for early stopping, lmrec's own rank and metric code
(numpy alone). The answers of the test part are not in that folder: what is handed over is ranked lists.

RecTools learns from each user's newest `session_max_len` + 1 events and drops what came before: on MovieLens, Online Retail and
Last.fm a third of all. lmrec learns from every event, so long users are cut into several here (`cut_long`).

    benchmarks/peers/.venv/bin/python benchmarks/peers/rectools_peer.py JOB.json      (PYTHONPATH=src:.)

A job: {"peer": "sasrec" | "unisrec", "settings": {...}, "seed": 0, "split": FOLDER, "out": FOLDER, "epochs": 20,
"patience": 3, "final": false, "forms": {"x": true}, "metric_k": 10, "list_k": 100, "search_cases": 4000}.
Not final: learns from training, is measured on validation after each epoch, stops when no form gets better. Final: learns
from training and validation for exactly `epochs`, and ranks the test part. Writes result.json, and lists.npz if final.
"""

import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.fast_transformers import UniSRecModel
from rectools.fast_transformers.unisrec.lightning import UniSRecLightning
from rectools.models import SASRecModel
from rectools.models.nn.transformers.lightning import TransformerLightningModule

from benchmarks.peers.stopwatch import Stopwatch, peak_mb
from benchmarks.peers.windows import cut_long
from lmrec.evaluation.metrics import ndcg_at
from lmrec.evaluation.ranking import rank_relevant
from lmrec.fields import Ragged

Lists = tuple[np.ndarray, np.ndarray]  # items (B, k) int32, -1 where empty, and their scores (B, k) float32
AfterEpoch = Callable[[], bool]  # True: stop
_BATCH = 256


class Split:
    """The folder that `exchange.py` wrote."""

    def __init__(self, folder: Path, final: bool) -> None:
        with np.load(folder / ("train_and_validation.npz" if final else "train.npz")) as log:
            self.user, self.item = log["user"], log["item"]
        self.text_vec = np.load(folder / "text_vec.npy") if (folder / "text_vec.npy").exists() else None
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self.n_items: int = facts["n_items"]
        with np.load(folder / ("test.npz" if final else "validation.npz")) as cases:
            self.history = Ragged(cases["history"], cases["history_offsets"])
            # The test file has no answers.
            self.relevant = None if final else Ragged(cases["relevant"], cases["relevant_offsets"])

    def sample(self, n: int) -> "Split":
        """Cases drawn as `Cases.sample` draws them with seed 0."""
        if n < len(self.history) and self.relevant is not None:
            rows = np.sort(np.random.default_rng(0).choice(len(self.history), size=n, replace=False))
            self.history, self.relevant = self.history.take(rows), self.relevant.take(rows)
        return self


def padded(history: Ragged, length: int, to_internal: np.ndarray) -> np.ndarray:
    """(B, length) the newest known items of each history, the last one at the right end; 0 elsewhere."""
    inside = to_internal[history.values]
    known = inside > 0
    kept = np.bincount(history.row_of_value[known], minlength=len(history))
    newest = Ragged(inside[known], np.concatenate([[0], np.cumsum(kept)])).last(length)
    sessions = np.zeros((len(history), length), np.int64)
    sessions[newest.row_of_value, length - 1 - newest.ages] = newest.values
    return sessions


def rank_catalog(
    score: Callable[[np.ndarray], np.ndarray], sessions: np.ndarray, split: Split, k: int, exclude: bool
) -> Lists:
    """The k best items of every case; a case of which nothing is known gets no list."""
    items, scores = [], []
    for start in range(0, len(sessions), _BATCH):
        block = score(sessions[start : start + _BATCH])
        if exclude:
            seen = split.history.slice(start, start + len(block))
            block[seen.row_of_value, seen.values] = -np.inf
        best = np.argpartition(-block, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(block, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        best, values = np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
        has_session = np.count_nonzero(sessions[start : start + _BATCH], axis=1) > 0
        unknown = ~np.isfinite(values) | ~has_session[:, None]
        items.append(np.where(unknown, -1, best).astype(np.int32))
        scores.append(np.where(unknown, -np.inf, values).astype(np.float32))
    return np.concatenate(items), np.concatenate(scores)


def validation_ndcg(
    score: Callable[[np.ndarray], np.ndarray], sessions: np.ndarray, split: Split, k: int, exclude: bool
) -> float:
    """lmrec's own rank and metric on the whole catalog."""
    assert split.relevant is not None
    found = []
    for start in range(0, len(sessions), _BATCH):
        stop = min(start + _BATCH, len(sessions))
        ranks = rank_relevant(
            score(sessions[start:stop]), split.history.slice(start, stop), split.relevant.slice(start, stop), exclude
        )
        found.append(ndcg_at(ranks, k))
    return float(np.concatenate(found).mean())


class RealPlaces(TransformerLightningModule):  # type: ignore[misc]
    """RecTools' softmax loss, computed at the places that hold an item alone. RecTools computes logits of the padding too,
    weighs them with zero, and takes about four times as long on short sessions; value and gradient are the same."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        item_embs = self.torch_model.item_model.get_all_embeddings()
        real = batch["y"] > 0
        states = self.torch_model.encode_sessions(batch, item_embs)[real]
        logits = self.torch_model.similarity_module(states, item_embs) / self.logits_t
        return torch.nn.functional.cross_entropy(logits, batch["y"][real])


class RealPlacesUniSRec(UniSRecLightning):  # type: ignore[misc]
    """The same for UniSRec."""

    def _full_softmax_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        real = labels > 0
        logits = hidden[real] @ self._get_all_embs()[1:].T  # without the padding, which RecTools sets to -inf
        return torch.nn.functional.cross_entropy(logits, labels[real] - 1)


class SASRec:
    """RecTools' SASRecModel, softmax over the whole catalog."""

    def __init__(self, settings: dict[str, Any], split: Split, epochs: int) -> None:
        known = dict(settings)
        temperature = known.pop("temperature", None)
        if temperature is not None:  # cosine instead of the product of the vectors
            known["similarity_module_kwargs"] = {"distance": "cosine"}
            known["lightning_module_kwargs"] = {"logits_t": temperature}
        module = TransformerLightningModule if known.pop("own_loss", False) else RealPlaces
        self.model = SASRecModel(loss="softmax", epochs=1, lightning_module_type=module, **known)
        self.split, self.epochs = split, epochs

    def fit(self, after_epoch: AfterEpoch) -> None:
        user, item = cut_long(self.split.user, self.split.item, self.model.session_max_len)
        order = pd.to_datetime(np.arange(len(user)), unit="s")
        events = {
            Columns.User: user,
            Columns.Item: item,
            Columns.Weight: 1,
            Columns.Datetime: order,
        }
        dataset = Dataset.construct(pd.DataFrame(events))
        for _ in range(self.epochs):
            self.model.fit_partial(dataset, min_epochs=1, max_epochs=1)
            if after_epoch():
                return

    def sessions(self) -> np.ndarray:
        known = self.model.data_preparator.item_id_map
        to_internal = np.zeros(self.split.n_items, np.int64)
        self.outside = known.external_ids[1:].astype(np.int64)  # 0 is the padding
        to_internal[self.outside] = np.arange(1, len(self.outside) + 1)
        return padded(self.split.history, self.model.session_max_len, to_internal)

    @torch.no_grad()
    def scorer(self) -> Callable[[np.ndarray], np.ndarray]:
        net = self.model.torch_model.eval()
        item_embs = net.item_model.get_all_embeddings()

        @torch.no_grad()
        def score(sessions: np.ndarray) -> np.ndarray:
            users = net.encode_sessions({"x": torch.from_numpy(sessions)}, item_embs)[:, -1:, :]
            logits = net.similarity_module(users, item_embs)[:, 0, 1:]
            scores = np.full((len(sessions), self.split.n_items), -np.inf, np.float32)
            scores[:, self.outside] = logits.numpy()
            return scores

        return score

    def train_mode(self) -> None:
        self.model.torch_model.train()


class _Stopper(pl.Callback):  # type: ignore[misc]
    def __init__(self, after_epoch: AfterEpoch, seen: Callable[[Any], None]) -> None:
        self.after_epoch, self.seen = after_epoch, seen

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.seen(pl_module.net)
        trainer.should_stop = self.after_epoch()


class _Watched(UniSRecModel):  # type: ignore[misc]
    """RecTools' own model whose trainer lets us look at validation after each epoch."""

    stopper: _Stopper

    def _make_lightning(self, net: Any, param_groups: Any, max_epochs: int, train_dl: Any) -> UniSRecLightning:
        made = super()._make_lightning(net, param_groups, max_epochs, train_dl)
        made.__class__ = RealPlacesUniSRec  # no state of its own
        return made

    def _make_trainer(self, max_epochs: int, val_dl: Any = None) -> pl.Trainer:
        trainer = super()._make_trainer(max_epochs, val_dl)
        trainer.callbacks.append(self.stopper)
        return trainer


class UniSRec:
    """RecTools' UniSRecModel on frozen text vectors. It ranks every item that has words, also those without events."""

    def __init__(self, settings: dict[str, Any], split: Split, epochs: int) -> None:
        assert split.text_vec is not None
        text = torch.from_numpy(split.text_vec.astype(np.float32))
        # An item's outside number is its row + 1; row 0 is padding.
        self.text = torch.cat([torch.zeros(1, text.shape[1]), text])
        self.model = _Watched(self.text, epochs=epochs, loss="softmax", **settings)
        self.split = split
        self.net: Any = None

    def fit(self, after_epoch: AfterEpoch) -> None:
        self.model.stopper = _Stopper(after_epoch, lambda net: setattr(self, "net", net))
        user, item = cut_long(self.split.user, self.split.item, self.model.session_max_len)
        self.model.fit(torch.from_numpy(user).long(), torch.from_numpy(item).long() + 1, torch.arange(len(user)))

    def sessions(self) -> np.ndarray:
        return padded(self.split.history, self.model.session_max_len, np.arange(1, self.split.n_items + 1))

    @torch.no_grad()
    def scorer(self) -> Callable[[np.ndarray], np.ndarray]:
        net = self.net.eval()
        trained = net.frozen_emb
        whole = self.text.unsqueeze(1)
        item_embs = net._adapt_score(self.text[1:])

        @torch.no_grad()
        def score(sessions: np.ndarray) -> np.ndarray:
            net.frozen_emb = whole  # the whole catalog, whose item numbers the sessions use
            try:
                found: np.ndarray = (net.encode_last(torch.from_numpy(sessions)) @ item_embs.T).numpy()
                return found
            finally:
                net.frozen_emb = trained

        return score

    def train_mode(self) -> None:
        self.net.train()


PEERS: dict[str, type[SASRec] | type[UniSRec]] = {"sasrec": SASRec, "unisrec": UniSRec}


def run(job: dict[str, Any]) -> None:
    final, out = job["final"], Path(job["out"])
    pl.seed_everything(job["seed"])
    split = Split(Path(job["split"]), final)
    if not final:
        split.sample(job["search_cases"])
    peer = PEERS[job["peer"]](job["settings"], split, job["epochs"])
    watch = Stopwatch()
    rows: list[dict[str, Any]] = []

    def after_epoch() -> bool:
        row: dict[str, Any] = {"epoch": len(rows) + 1, **watch.read()}
        with watch.paused():
            if not final:
                score, sessions = peer.scorer(), peer.sessions()
                row["validation"] = {
                    form: validation_ndcg(score, sessions, split, job["metric_k"], exclude)
                    for form, exclude in job["forms"].items()
                }
                peer.train_mode()
        rows.append(row)
        return not final and _is_over(rows, job["patience"])

    peer.fit(after_epoch)
    spent = watch.read()
    if final:
        score, sessions = peer.scorer(), peer.sessions()
        lists: dict[str, Any] = {}
        for form, exclude in job["forms"].items():
            lists[f"{form}_items"], lists[f"{form}_scores"] = rank_catalog(
                score, sessions, split, job["list_k"], exclude
            )
        np.savez_compressed(out / "lists.npz", **lists)
    facts = {
        "job": job,
        "epochs": rows,
        **spent,
        "peak_mb": peak_mb(),
        "threads": torch.get_num_threads(),
    }
    fresh = out / ".result.json.new"
    fresh.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    fresh.rename(out / "result.json")


def _is_over(rows: list[dict[str, Any]], patience: int) -> bool:
    """Whether every form's best epoch lies `patience` epochs back."""
    for form in rows[0]["validation"]:
        values = [row["validation"][form] for row in rows]
        if len(values) - 1 - int(np.argmax(values)) < patience:
            return False
    return True


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
