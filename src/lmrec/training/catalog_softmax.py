"""Softmax over the whole catalog in bounded memory: value and gradients in one go, logits never whole.

Two ways, with the same result. *Rows*: all logits of some users at once, kept until their gradient is taken; the quicker
one while a few dozen users' logits fit a processor's cache. *Tiles*: some users and some items at a time, twice over: once
for the sums that normalise, and once more for the gradients. That computes the product of users and items a second time and
reads the catalog's rows from memory once for hundreds of users, where rows would read them for a handful
(`make bench-speed ONLY=softmax`: what it takes from 10,000 to a million items).
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lmrec.training.objectives import Seen, Trend

_KEPT = 4_000_000  # logits of one chunk of users, 16 MB in fp32
_FEWEST_ROWS = 64  # with fewer users at a time the catalog's rows are read too often
_TILE_CPU = (1024, 4096)  # users x items: 16 MB of logits, and enough of both that threads seldom wait
_TILE_GPU = (4096, 16_384)


def full_softmax(
    user_vec: Tensor,
    item_vec: Tensor,
    target: Tensor,
    weight: Tensor,
    scale: Tensor,
    seen: Seen | None = None,
    chunk: int = 0,
    tile: int = 0,
    trend: Trend | None = None,
) -> Tensor:
    """The same loss as `objectives.full_softmax_plain` and the same gradients, in bounded memory.

    chunk: users at a time, tile: items at a time. Both 0: all items for as many users as fit 4 million logits, and tiles
    where that would be fewer than 64 users. Gradients are taken on the spot from their closed form:

        dL/dz_pj = w_p / sum w * (softmax(z_p)_j - [j = y_p]),  z = s u v^T, -inf outside C_p
        dL/du = s dz v,   dL/dv = s dz^T u,   dL/ds = sum dz * (u v^T) = sum_p u_p . dL/du_p / s

    With a trend z has weight * worth added, and dL/dweight = sum dz * worth.

    Source: the plain derivative of softmax cross-entropy; the fusing as in Liger Kernel, Hsu et al. 2024,
    https://arxiv.org/abs/2410.10989, and over tiles of items as in Wijmans et al. 2024, https://arxiv.org/abs/2411.09009.
    Data: any (history, next item) pairs. No sampling, so no bias to correct. Units: nats a target.
    """
    rows = chunk or _KEPT // max(1, len(item_vec))
    if not (chunk or tile) and rows < _FEWEST_ROWS:
        rows, tile = _TILE_CPU if item_vec.device.type == "cpu" else _TILE_GPU
    loss: Tensor = _FullSoftmax.apply(  # type: ignore[no-untyped-call]
        user_vec,
        item_vec,
        target,
        weight,
        scale,
        seen,
        max(1, rows),
        tile,
        trend,
        None if trend is None else trend.weight,
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
        rows: int,
        tile: int,
        trend: Trend | None,
        trend_weight: Tensor | None,
    ) -> Tensor:
        if trend is not None:
            trend = replace(trend, weight=trend.weight.detach())
        asked, share = scale * user_vec, weight / weight.sum()
        if tile:
            loss, d_asked, d_item, d_trend = _by_tiles(asked, item_vec, target, share, seen, rows, tile, trend)
        else:
            loss, d_asked, d_item, d_trend = _by_rows(asked, item_vec, target, share, seen, rows, trend)
        ctx.save_for_backward(scale * d_asked, d_item, (d_asked * user_vec).sum().to(scale.dtype), d_trend)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        found = ctx.saved_tensors
        if not bool(grad == 1):  # mostly it is, and the items' gradient is as large as the catalog
            found = tuple(grad * part for part in found)
        d_user, d_item, d_scale, d_trend = found
        nothing = (None,) * 4
        return d_user, d_item, None, None, d_scale, *nothing, d_trend if ctx.needs_input_grad[9] else None


def _by_rows(
    asked: Tensor,
    item_vec: Tensor,
    target: Tensor,
    share: Tensor,
    seen: Seen | None,
    rows: int,
    trend: Trend | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, d asked (P, D), d item (N, D), d of the trend's weight ().

    asked: (P, D) the users' vectors times the scale; share: (P,) sums to 1.
    """
    d_asked, d_item = torch.empty_like(asked), torch.zeros_like(item_vec)
    loss, d_trend = asked.new_zeros(()), asked.new_zeros(())
    room = asked.new_empty(min(rows, len(asked)), len(item_vec))
    for start in range(0, len(asked), rows):
        part = slice(start, start + rows)
        users, right, w = asked[part], target[part].unsqueeze(1), share[part].unsqueeze(1)
        logits = torch.mm(users, item_vec.T, out=room[: len(users)])  # (rows, N)
        if trend is not None:
            worths = trend.take(part).worths()
            logits.addcmul_(worths, trend.weight)
        right_logit = logits.gather(1, right)
        if seen is not None:
            at, places = seen.mask[part].nonzero(as_tuple=True)
            logits[at, seen.item_idx[part][at, places]] = -torch.inf
            logits.scatter_(1, right, right_logit)
        highest = logits.amax(1, keepdim=True)
        total = logits.sub_(highest).exp_().sum(1, keepdim=True)
        loss += (w * (total.log() + highest - right_logit)).sum()
        d_logits = logits.mul_(w / total)  # 0 where seen
        d_logits.scatter_add_(1, right, -w)
        if trend is not None:
            d_trend += torch.dot(d_logits.flatten(), worths.flatten())
        torch.mm(d_logits, item_vec, out=d_asked[part])
        d_item.addmm_(d_logits.T, users)
    return loss, d_asked, d_item, d_trend


def _by_tiles(
    asked: Tensor,
    item_vec: Tensor,
    target: Tensor,
    share: Tensor,
    seen: Seen | None,
    rows: int,
    tile: int,
    trend: Trend | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `_by_rows`, with logits of `rows` users and `tile` items at a time."""
    n_users, n_items = len(asked), len(item_vec)
    hidden = _Hidden(seen, target, rows, tile)
    right_vec = item_vec[target]
    right_logit, d_trend = (asked * right_vec).sum(1), asked.new_zeros(())
    if trend is not None:
        right_logit = right_logit + trend.of_items(target)
    # The right item is a candidate always, so its score is a finite start for the highest.
    highest, total = right_logit.clone(), torch.zeros_like(right_logit)
    users = [slice(start, min(start + rows, n_users)) for start in range(0, n_users, rows)]
    items = [slice(start, min(start + tile, n_items)) for start in range(0, n_items, tile)]

    def logits_of(user: slice, item: slice) -> Tensor:
        logits = torch.mm(asked[user], item_vec[item].T)
        if trend is not None:
            logits.addcmul_(trend.take(user).worths(item), trend.weight)
        return hidden.hide(logits, user, item)

    for user in users:
        for item in items:
            logits = logits_of(user, item)
            now = torch.maximum(highest[user], logits.amax(1))
            fresh = logits.sub_(now.unsqueeze(1)).exp_().sum(1)
            total[user] = total[user] * (highest[user] - now).exp_() + fresh
            highest[user] = now
    log_sum = total.log() + highest
    less = (log_sum - share.log()).unsqueeze(1)  # exp(logit - less) = share * softmax
    d_asked, d_item = torch.zeros_like(asked), torch.zeros_like(item_vec)
    for item in items:
        for user in users:
            d_logits = logits_of(user, item).sub_(less[user]).exp_()
            if trend is not None:
                d_trend += (d_logits * trend.take(user).worths(item)).sum()
            d_asked[user].addmm_(d_logits, item_vec[item])
            d_item[item].addmm_(d_logits.T, asked[user])
    d_asked.addcmul_(right_vec, -share.unsqueeze(1))
    d_item.index_add_(0, target, -share.unsqueeze(1) * asked)
    if trend is not None:
        d_trend -= (share * trend.worth[trend.stretch, target]).sum()
    return (share * (log_sum - right_logit)).sum(), d_asked, d_item, d_trend


class _Hidden:
    """The (user, item) pairs that are no candidates, found by tile. The right item is never one of them."""

    def __init__(self, seen: Seen | None, target: Tensor, rows: int, tile: int) -> None:
        self.rows, self.tile = rows, tile
        self.parts: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        if seen is None:
            return
        user, place = seen.mask.nonzero(as_tuple=True)
        item = seen.item_idx[user, place]
        others = item != target[user]
        user, item = user[others], item[others]
        n_across = int(item.max()) // tile + 1 if len(item) else 1
        number = torch.div(user, rows, rounding_mode="floor") * n_across + torch.div(item, tile, rounding_mode="floor")
        order = number.argsort()
        numbers, counts = torch.unique(number, return_counts=True)  # ascending, as the order is
        for at, pairs in zip(numbers.tolist(), torch.split(order, counts.tolist()), strict=True):
            self.parts[at // n_across, at % n_across] = user[pairs] % rows, item[pairs] % tile

    def hide(self, logits: Tensor, user: slice, item: slice) -> Tensor:
        """The logits of this tile with -inf at its pairs, in place."""
        pairs = self.parts.get((user.start // self.rows, item.start // self.tile))
        if pairs is not None:
            logits[pairs] = -torch.inf
        return logits
