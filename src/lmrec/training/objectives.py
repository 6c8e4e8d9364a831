"""Objectives: pure functions from scores' ingredients and labels to a loss.

| objective       | data it needs                  | relation to the others                                             |
|-----------------|--------------------------------|--------------------------------------------------------------------|
| full_softmax    | any (history, next item) pairs | the reference; nothing is drawn, so nothing has to be corrected    |
| sampled_softmax | the same                       | tends to full_softmax as draws grow; for catalogs that are too big |
| shown_softmax   | clicks in lists that were shown | a softmax over the list alone; added to one of the others          |
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """Items that are no candidates for a target: item_idx (P, H) rows of items, mask (P, H) which of them count."""

    item_idx: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Shown:
    """What was shown beside each target and not clicked: item_idx (T, K) rows of items, mask (T, K) which are real."""

    item_idx: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> "Shown":
        return Shown(self.item_idx.to(device), self.mask.to(device))


@dataclass(frozen=True)
class Trend:
    """What stands beside the score of item j for target p: weight * worth[stretch[p], j]. stretch: (P,) rows of worth (M, N),
    one for each stretch of time; weight: (), learnt."""

    stretch: Tensor
    worth: Tensor
    weight: Tensor

    def among(self, item_idx: Tensor) -> "Trend":
        """Of these items alone."""
        return replace(self, worth=self.worth[:, item_idx])

    def take(self, part: slice | Tensor) -> "Trend":
        """Of these targets alone."""
        return replace(self, stretch=self.stretch[part])

    def worths(self, items: slice = slice(None)) -> Tensor:
        """(P, N) what is to be weighed, of these items."""
        return self.worth[:, items][self.stretch]

    def of_items(self, item_idx: Tensor) -> Tensor:
        """(P, ...) what is added for items (P, ...), each target's own."""
        stretch = self.stretch.view(-1, *[1] * (item_idx.dim() - 1))
        return self.weight * self.worth[stretch, item_idx]


@dataclass(frozen=True)
class Asked:
    """What an objective reads. user_vec: (P, D) and item_vec: (N, D) as the head prepared them; target: (P,) rows of the
    right items; weight: (P,) >= 0; scale: () the factor on their product; times: (P,) when each target was chosen, UTC
    seconds or positions; trend: what stands beside the scores."""

    user_vec: Tensor
    item_vec: Tensor
    target: Tensor
    weight: Tensor
    scale: Tensor
    seen: Seen | None = None
    shown: Shown | None = None
    times: Tensor | None = None
    trend: Trend | None = None


@dataclass(frozen=True)
class DrawnNegatives:
    """item_idx: (U,) different items. log_times: (U,) log(expected times drawn / times drawn), which is taken off their
    scores."""

    item_idx: Tensor
    log_times: Tensor


def sampled_softmax(asked: Asked, negatives: DrawnNegatives) -> Tensor:
    """Cross-entropy against drawn items whose scores are corrected for how likely they were drawn (logQ).

        loss = sum_p w_p (log Z_p - s_{p, y_p}) / sum_p w_p
        Z_p = exp(s_{p, y_p}) + sum_m [j_m != y_p, j_m not in seen_p] exp(s_{p, j_m}) / n_{j_m},  n_j = M q_j

    n_j is how often item j was to be expected among the M draws, q_j its probability in one of them.

    With exact q, Z_p is an unbiased estimate of the sum over the catalog (its log, by Jensen's inequality, is low by about
    Var(Z) / 2 Z^2, which falls as 1/M). Source: Bengio & Senecal 2008, https://doi.org/10.1109/TNN.2007.912312; Yi et al.
    2019, https://doi.org/10.1145/3298689.3346996. Units: nats a target. Memory: (P, U).
    """
    logits = sampled_logits(asked, negatives)
    loss = logits.logsumexp(1) - logits[:, 0]
    return (asked.weight * loss).sum() / asked.weight.sum()


def sampled_logits(asked: Asked, negatives: DrawnNegatives) -> Tensor:
    """(P, 1 + U): the right item's score, then the corrected ones of the draws, -inf where they are no candidates."""
    right = asked.scale * (asked.user_vec * asked.item_vec[asked.target]).sum(1, keepdim=True)  # (P, 1)
    logits = asked.scale * asked.user_vec @ asked.item_vec[negatives.item_idx].T - negatives.log_times  # (P, U)
    if asked.trend is not None:
        right = right + asked.trend.of_items(asked.target).unsqueeze(1)
        logits = logits + asked.trend.weight * asked.trend.among(negatives.item_idx).worths()
    hidden = negatives.item_idx == asked.target.unsqueeze(1)
    if asked.seen is not None:
        place = torch.full((len(asked.item_vec),), -1, dtype=torch.int64, device=logits.device)
        place[negatives.item_idx] = torch.arange(len(negatives.item_idx), device=logits.device)
        rows, at = asked.seen.mask.nonzero(as_tuple=True)
        drawn_at = place[asked.seen.item_idx[rows, at]]
        hidden[rows[drawn_at >= 0], drawn_at[drawn_at >= 0]] = True
    return torch.cat([right, logits.masked_fill(hidden, -torch.inf)], dim=1)


def smoothing_gap(asked: Asked) -> Tensor:
    """What label smoothing adds to a softmax's loss, at strength 1, without a (P, N) array.

    Cross-entropy against (1 - e) on the right item and e spread evenly over the candidates C_p, the right one included, is

        L_e = L_0 + e * gap,    gap = sum_p w_p (s_{p, y_p} - mean_{j in C_p} s_{p, j}) / sum_p w_p

    and the mean of a product is the product with the mean: s * u_p . (sum_{C_p} v_j) / |C_p|. Exact also where log Z is
    estimated from draws. C_p is the catalog less the items that were seen; the right one stays. Source: Szegedy et al. 2016,
    https://arxiv.org/abs/1512.00567. Units: nats a target.
    """
    n_items = len(asked.item_vec)
    total = asked.item_vec.sum(0).expand_as(asked.user_vec)  # (P, D)
    trend = asked.trend
    worth = (
        asked.scale.new_zeros(len(asked.target)) if trend is None else trend.weight * trend.worth.sum(1)[trend.stretch]
    )
    count = torch.full((len(asked.target),), float(n_items), device=total.device, dtype=total.dtype)
    if asked.seen is not None:
        rows, places = asked.seen.mask.nonzero(as_tuple=True)
        pairs = torch.unique(rows * n_items + asked.seen.item_idx[rows, places])  # an item seen twice is one
        rows, items = pairs // n_items, pairs % n_items
        others = items != asked.target[rows]
        rows, items = rows[others], items[others]
        total = total.index_add(0, rows, -asked.item_vec[items])
        count = count.index_add(0, rows, -torch.ones_like(rows, dtype=count.dtype))
        if trend is not None:
            worth = worth.index_add(0, rows, -trend.take(rows).of_items(items))
    mean = total / count.unsqueeze(1)
    gap = asked.scale * (asked.user_vec * (asked.item_vec[asked.target] - mean)).sum(1)
    if trend is not None:
        gap = gap + trend.of_items(asked.target) - worth / count
    return (asked.weight * gap).sum() / asked.weight.sum()


def symmetric_kl(logits: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p) of two softmaxes over the same candidates, -inf at the same places; the weighted mean of rows.

    logits, other: (P, K). weight: (P,). With the log-sums gone it is sum_j (p_j - q_j) (a_j - b_j). Units: nats a target.
    """
    apart = torch.where(torch.isfinite(logits), logits - other, 0.0)
    rows = ((logits.softmax(1) - other.softmax(1)) * apart).sum(1)
    return (weight * rows).sum() / weight.sum()


def full_divergence(one: Asked, other: Asked, chunk: int = 0) -> Tensor:
    """`symmetric_kl` of two passes over the whole catalog less what was seen, in bounded memory: logits are made for
    `chunk` users at a time (0: as many as fit 4 million logits), and made again for the gradient."""
    from torch.utils.checkpoint import checkpoint

    rows = chunk or max(1, 4_000_000 // max(1, len(one.item_vec)))
    total = one.weight.sum()

    def logits_of(of: Asked, logits: Tensor, part: slice) -> Tensor:
        if of.trend is not None:
            logits = logits + of.trend.weight * of.trend.take(part).worths()
        return _hide_seen(logits, of.seen, of.target, part)

    def part_of(start: int, *tensors: Tensor) -> Tensor:
        part = slice(start, start + rows)
        user, item, scale, other_user, other_item, other_scale = tensors
        logits = logits_of(one, scale * user[part] @ item.T, part)
        others = logits_of(one, other_scale * other_user[part] @ other_item.T, part)
        weight = one.weight[part]
        return symmetric_kl(logits, others, weight) * weight.sum() / total

    inputs = (one.user_vec, one.item_vec, one.scale, other.user_vec, other.item_vec, other.scale)
    parts = [
        checkpoint(part_of, start, *inputs, use_reentrant=False, preserve_rng_state=False)
        for start in range(0, len(one.target), rows)
        if bool(one.weight[start : start + rows].sum() > 0)
    ]
    return torch.stack(parts).sum()


def _hide_seen(logits: Tensor, seen: Seen | None, target: Tensor, part: slice) -> Tensor:
    """(C, N) logits of the targets of `part` with -inf where an item is no candidate."""
    if seen is None:
        return logits
    hidden = torch.zeros_like(logits, dtype=torch.bool)
    rows, places = seen.mask[part].nonzero(as_tuple=True)
    hidden[rows, seen.item_idx[part][rows, places]] = True
    hidden[torch.arange(len(hidden), device=hidden.device), target[part]] = False
    return logits.masked_fill(hidden, -torch.inf)


def shown_softmax(asked: Asked, item_idx: Tensor, log_times: Tensor) -> Tensor:
    """The click against what was shown beside it: cross-entropy over the list, 0 where no target was clicked in a list.

    item_idx, log_times: (P, K) as `samplers.ShownSampler` draws them. Data: impressions. Source: Wu et al. 2019 (NRMS),
    https://aclanthology.org/D19-1671, section 2.3. Units: nats a click.
    """
    rows = torch.isfinite(log_times).any(1) & (asked.weight > 0)
    if not bool(rows.any()):
        return asked.user_vec.sum() * 0.0
    users, weight = asked.user_vec[rows], asked.weight[rows]
    right = asked.scale * (users * asked.item_vec[asked.target[rows]]).sum(1, keepdim=True)
    others = asked.scale * torch.einsum("pd,pkd->pk", users, asked.item_vec[item_idx[rows]])
    if asked.trend is not None:
        trend = asked.trend.take(rows)
        right = right + trend.of_items(asked.target[rows]).unsqueeze(1)
        others = others + trend.of_items(item_idx[rows])
    others = others - torch.nan_to_num(log_times[rows], neginf=0.0)
    others = others.masked_fill(~torch.isfinite(log_times[rows]), -torch.inf)
    loss = torch.cat([right, others], dim=1).logsumexp(1) - right.squeeze(1)
    return (weight * loss).sum() / weight.sum()


def full_softmax_plain(
    user_vec: Tensor,
    item_vec: Tensor,
    target: Tensor,
    weight: Tensor,
    scale: Tensor,
    seen: Seen | None = None,
    trend: Trend | None = None,
) -> Tensor:
    """Cross-entropy over the whole catalog, written as the formula: the reference for
    `catalog_softmax.full_softmax`.

        loss = sum_p w_p * ( log sum_{j in C_p} exp(s * u_p . v_j) - s * u_p . v_{y_p} ) / sum_p w_p

    C_p is the catalog less the items that `seen` names for p; the target itself always stays. Where there is a trend, what it
    says of an item stands beside its score.
    user_vec: (P, D). item_vec: (N, D). target: (P,) rows of the right items. weight: (P,) >= 0. scale: () s.
    Units: nats a target. Needs (P, N) memory twice over; use `catalog_softmax.full_softmax` to
    train.
    """
    logits = scale * user_vec @ item_vec.T
    if trend is not None:
        logits = logits + trend.weight * trend.worths()
    logits = _hide_seen(logits, seen, target, slice(None))
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return (weight * loss).sum() / weight.sum()
