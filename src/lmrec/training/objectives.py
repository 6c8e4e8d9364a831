"""Objectives: pure functions from scores' ingredients and labels to a loss."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """Items that are no candidates for a target: item_idx (P, H) rows of items, mask (P, H) which of them count."""

    item_idx: Tensor
    mask: Tensor


def full_softmax_plain(
    user_vec: Tensor, item_vec: Tensor, target: Tensor, weight: Tensor, scale: Tensor, seen: Seen | None = None
) -> Tensor:
    """Cross-entropy over the whole catalog, written as the formula: the reference for `full_softmax`.

        loss = sum_p w_p * ( log sum_{j in C_p} exp(s * u_p . v_j) - s * u_p . v_{y_p} ) / sum_p w_p

    C_p is the catalog less the items that `seen` names for p; the target itself always stays.
    user_vec: (P, D). item_vec: (N, D). target: (P,) rows of the right items. weight: (P,) >= 0. scale: () s.
    Units: nats a target. Needs (P, N) memory twice over; use `full_softmax` to train.
    """
    logits = scale * user_vec @ item_vec.T
    if seen is not None:
        hidden = torch.zeros_like(logits, dtype=torch.bool)
        rows, places = seen.mask.nonzero(as_tuple=True)
        hidden[rows, seen.item_idx[rows, places]] = True
        hidden[torch.arange(len(target)), target] = False
        logits = logits.masked_fill(hidden, float("-inf"))
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return (weight * loss).sum() / weight.sum()


def full_softmax(
    user_vec: Tensor,
    item_vec: Tensor,
    target: Tensor,
    weight: Tensor,
    scale: Tensor,
    seen: Seen | None = None,
    chunk: int = 0,
) -> Tensor:
    """The same loss as `full_softmax_plain` and the same gradients, in bounded memory.

    Logits are made for `chunk` users at a time (0: as many as fit 4 million logits) and gradients are taken on the spot
    from their closed form, so that no (P, N) array outlives its chunk:

        dL/dz_pj = w_p / sum w * (softmax(z_p)_j - [j = y_p]),  z = s u v^T, -inf outside C_p
        dL/du = s dz v,   dL/dv = s dz^T u,   dL/ds = sum dz * (u v^T)

    Source: the plain derivative of softmax cross-entropy; the fusing as in Liger Kernel, Hsu et al. 2024,
    https://arxiv.org/abs/2410.10989. Data: any (history, next item) pairs. No sampling, so no bias to correct.
    """
    rows = chunk or max(1, 4_000_000 // max(1, len(item_vec)))
    loss: Tensor = _FullSoftmax.apply(  # type: ignore[no-untyped-call]
        user_vec, item_vec, target, weight, scale, seen, rows
    )
    return loss


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        user_vec: Tensor,
        item_vec: Tensor,
        target: Tensor,
        weight: Tensor,
        scale: Tensor,
        seen: Seen | None,
        chunk: int,
    ) -> Tensor:
        total = weight.sum()
        d_user, d_item, d_scale = torch.empty_like(user_vec), torch.zeros_like(item_vec), torch.zeros_like(scale)
        loss = torch.zeros((), dtype=user_vec.dtype, device=user_vec.device)
        for start in range(0, len(user_vec), chunk):
            part = slice(start, start + chunk)
            users, right, w = user_vec[part], target[part].unsqueeze(1), weight[part]
            product = users @ item_vec.T  # (chunk, N)
            logits = product * scale
            right_logit = logits.gather(1, right)
            if seen is not None:
                at, places = seen.mask[part].nonzero(as_tuple=True)
                logits[at, seen.item_idx[part][at, places]] = float("-inf")
                logits.scatter_(1, right, right_logit)
            log_sum = logits.logsumexp(1)
            loss += (w * (log_sum - right_logit.squeeze(1))).sum()
            d_logits = logits.sub_(log_sum.unsqueeze(1)).exp_()  # 0 where seen
            d_logits.scatter_add_(1, right, torch.full_like(right, -1, dtype=d_logits.dtype))
            d_logits *= (w / total).unsqueeze(1)
            d_scale += (d_logits * product).sum()
            d_user[part] = scale * (d_logits @ item_vec)
            d_item += scale * (d_logits.T @ users)
        ctx.save_for_backward(d_user, d_item, d_scale)
        return loss / total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        d_user, d_item, d_scale = ctx.saved_tensors
        return grad * d_user, grad * d_item, None, None, grad * d_scale, None, None
