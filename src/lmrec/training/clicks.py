"""Learning from lists that were shown: what was clicked against what was not, of the same list.

For each click `n_negatives` candidates of its list that were not clicked are drawn, anew in each epoch, and the click is
told from them by a softmax (Wu et al. 2019, https://aclanthology.org/D19-1671, section 2.3).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lmrec.errors import TrainingError
from lmrec.fields import BoolArray, FloatArray, IntArray, Ragged
from lmrec.progress import Bar


class ClickTrainingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=8, ge=1, description="Most passes over all clicks; the best by validation is kept.")
    learning_rate: float = Field(default=5e-4, gt=0, description="Adam's learning rate.")
    batch_clicks: int = Field(default=64, ge=1, description="Clicks in a batch.")
    n_negatives: int = Field(default=4, ge=1, description="Candidates not clicked that stand against each click.")
    patience: int = Field(default=2, ge=1, description="Epochs without a better validation metric before it ends.")
    seed: int = Field(default=0, ge=0, description="Seed of the draws and the batches.")


@dataclass(frozen=True, eq=False)
class ClickLists:
    """history, candidates: a row each for every list; clicked lies beside `candidates.values`."""

    history: Ragged
    candidates: Ragged
    clicked: BoolArray


Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # history (B, H), mask (B, H), candidates (B, K) -> scores (B, K)


def fit_clicks(
    model: nn.Module, lists: ClickLists, validate: Callable[[], float], config: ClickTrainingConfig, bar: Bar
) -> float:
    """Train in place, end with the weights of the best epoch, and return its validation metric."""
    torch.manual_seed(config.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    best, best_epoch, kept = -np.inf, 0, copy.deepcopy(model.state_dict())
    for epoch in range(config.epochs):
        rng = np.random.default_rng((config.seed, epoch))
        rows, drawn = draw_beside_clicks(lists, config.n_negatives, rng)
        model.train()
        order = rng.permutation(len(rows))
        for start in range(0, len(order), config.batch_clicks):
            chosen = order[start : start + config.batch_clicks]
            history_idx, history_mask = pad_rows(lists.history.take(rows[chosen]))
            scores = model(history_idx, history_mask, torch.from_numpy(drawn[chosen]))
            loss = nn.functional.cross_entropy(scores, torch.zeros(len(chosen), dtype=torch.int64))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss on shown lists is {loss.item()} in epoch {epoch + 1}. Lower the learning rate"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.eval()
        metric = validate()
        bar(epoch + 1, config.epochs)
        if metric > best:
            best, kept, best_epoch = metric, copy.deepcopy(model.state_dict()), epoch
        elif epoch - best_epoch >= config.patience:
            break
    model.load_state_dict(kept)
    return float(best)


def draw_beside_clicks(lists: ClickLists, n_negatives: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """(C,) the list of each click, and (C, 1 + n_negatives) items: the click, then candidates of its list that were not
    clicked, drawn uniformly with replacement. Lists without such a candidate are passed over."""
    candidates, clicked = lists.candidates, lists.clicked
    order = np.lexsort((clicked, candidates.row_of_value))  # in each list what was not clicked comes first
    items = candidates.values[order]
    n_not = candidates.lengths - np.bincount(
        candidates.row_of_value, weights=clicked, minlength=len(candidates)
    ).astype(np.int64)
    click_at = np.flatnonzero(clicked[order])
    rows = candidates.row_of_value[click_at]
    usable = n_not[rows] > 0
    click_at, rows = click_at[usable], rows[usable]
    steps = (rng.random((len(rows), n_negatives)) * n_not[rows][:, None]).astype(np.int64)
    drawn = items[candidates.offsets[:-1][rows][:, None] + steps]
    return rows, np.concatenate([items[click_at][:, None], drawn], axis=1).astype(np.int64)


def pad_rows(rows: Ragged) -> tuple[Tensor, Tensor]:
    """(B, H) int64, right-padded with 0, at least one wide, and its mask."""
    longest = max(1, int(rows.lengths.max(initial=0)))
    mask = np.arange(longest) < rows.lengths[:, None]
    padded = np.zeros((len(rows), longest), np.int64)
    padded[mask] = rows.values
    return torch.from_numpy(padded), torch.from_numpy(mask)


@torch.no_grad()
def score_lists(model: nn.Module, history: Ragged, candidates: Ragged, batch: int = 64) -> FloatArray:
    """(n_shown,) the model's scores; lists of like length are computed together."""
    model.eval()
    scores = np.zeros(len(candidates.values), np.float32)
    order = np.argsort(candidates.lengths, kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        history_idx, history_mask = pad_rows(history.take(rows))
        shown_idx, shown_mask = pad_rows(candidates.take(rows))
        found = model(history_idx, history_mask, shown_idx).numpy()
        places = candidates.offsets[:-1][rows][:, None] + np.arange(shown_idx.shape[1])
        mask = shown_mask.numpy()
        scores[places[mask]] = found[mask]
    return scores
