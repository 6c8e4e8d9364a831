"""Fusing scores with weights learnt from choices: one softmax over each list, a weight for every part. No torch.

    P(i is chosen of list l) = exp(w . x_i) / sum_{j in l} exp(w . x_j)

The conditional logit (McFadden 1974). What is common to all items of a list cancels, so parts may differ in scale from list
to list, but each is brought to unit spread over all lists first, which the weights then are in units of. Lists are what was
shown, or what was chosen beside candidates of the catalog.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from lmrec.errors import InputError
from lmrec.fields import BoolArray, FloatArray, Ragged


@dataclass(frozen=True)
class Stack:
    """names, weights, scale: one for each part; score = sum of weight * part / scale."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    scale: tuple[float, ...]

    def score(self, parts: FloatArray) -> FloatArray:
        """(S, F) the parts' scores -> (S,)."""
        return np.asarray(parts @ (np.array(self.weights) / np.array(self.scale)))

    def words(self) -> str:
        """The weights for a person, the heaviest first."""
        order = np.argsort(-np.abs(self.weights))
        return ", ".join(f"{self.weights[at]:+.2f} {self.names[at]}" for at in order)


def fit_stack(
    names: Sequence[str],
    parts: FloatArray,
    lists: Ragged,
    chosen: BoolArray,
    pull: float = 1e-3,
    nonnegative: bool = False,
) -> Stack:
    """The weights of greatest likelihood on these lists.

    parts: (S, F) scores of every part for every list value. chosen: (S,). pull: half the weight of |w|^2 in the loss, whose
    other term is the mean over choices. nonnegative: a part may be ignored but not turned round.
    Raises InputError where nothing was chosen.
    """
    if not chosen.any():
        raise InputError("weights of a fusion are learnt from choices, and these lists hold none")
    rows = lists.row_of_value
    mean = np.zeros((len(lists), parts.shape[1]))
    np.add.at(mean, rows, parts)
    mean /= np.maximum(lists.lengths, 1)[:, None]
    centred = parts - mean[rows]
    spread = np.sqrt(np.mean(centred**2, axis=0))
    scale = np.where(spread > 1e-9, spread, 1.0)  # a part that never differs within a list says nothing
    x, n_chosen = centred / scale, np.bincount(rows, weights=chosen, minlength=len(lists))

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        logits = x @ weights
        top = np.full(len(lists), -np.inf)
        np.maximum.at(top, rows, logits)
        raised = np.exp(logits - top[rows])
        sums = np.bincount(rows, weights=raised, minlength=len(lists))
        log_sum = top[n_chosen > 0] + np.log(sums[n_chosen > 0])
        value = (n_chosen[n_chosen > 0] @ log_sum - logits[chosen].sum()) / n_chosen.sum()
        pushed = raised * (n_chosen / np.maximum(sums, 1e-300))[rows] - chosen
        return float(value + 0.5 * pull * weights @ weights), x.T @ pushed / n_chosen.sum() + pull * weights

    bounds = [(0.0, None)] * x.shape[1] if nonnegative else None
    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Stack(tuple(names), tuple(map(float, found)), tuple(map(float, scale)))
