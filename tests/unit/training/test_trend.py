"""A popularity that moves with time, beside the scores of a softmax: counted without the future, heard by every objective."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lmrec.data.interactions import Interactions
from lmrec.errors import RecipeError
from lmrec.fields import TimeKind
from lmrec.retrieval.popularity import recent_popularity
from lmrec.training.compress import Matryoshka
from lmrec.training.losses import FullSoftmax, ObjectiveConfig, build_objective
from lmrec.training.objectives import (
    Asked,
    DrawnNegatives,
    Seen,
    Shown,
    Trend,
    full_divergence,
    sampled_softmax,
    shown_softmax,
    symmetric_kl,
)
from lmrec.training.samplers import HardSampler
from lmrec.training.trend import PastPopularity, WithTrend, go_on_from, trend_of

DAY = 86_400.0


def log_of(
    items: list[int], days: list[float], weight: list[float] | None = None, kind: TimeKind = "timestamp"
) -> Interactions:
    return Interactions.from_arrays(
        user_ids=["u"],
        user_idx=np.zeros(len(items), np.int32),
        item_idx=np.array(items, np.int32),
        time_ts=np.array(days) * (DAY if kind == "timestamp" else 1.0),
        weight=None if weight is None else np.array(weight),
        time_kind=kind,
    )


def test_what_is_worth_at_a_time_knows_nothing_of_what_comes_after() -> None:
    rng = np.random.default_rng(0)
    days = np.sort(rng.uniform(100, 130, 300))
    log = log_of(rng.integers(0, 5, 300).tolist(), days.tolist(), rng.uniform(0.5, 2, 300).tolist())
    past = PastPopularity.of(log, 5, half_life_days=2.0)
    for number in (0, 1, 7, len(past.worth) - 2):
        begin = past.first_ts + number * past.length_s
        before = log.time_ts < begin
        faded = log.weight[before] * 0.5 ** ((begin - log.time_ts[before]) / (2 * DAY))
        expected = np.log1p(np.bincount(log.item_idx[before], weights=faded, minlength=5))
        np.testing.assert_allclose(past.worth[number], expected, rtol=1e-5, atol=1e-6)
    # Each event asks for the stretch that it lies in, which began no later.
    stretch = past.stretch_of(torch.from_numpy(log.time_ts), log.n_events).numpy()
    assert (past.first_ts + stretch * past.length_s <= log.time_ts).all()


def test_what_holds_now_is_what_is_served() -> None:
    rng = np.random.default_rng(1)
    log = log_of(rng.integers(0, 4, 50).tolist(), np.sort(rng.uniform(0, 9, 50)).tolist())
    past = PastPopularity.of(log, 4, half_life_days=3.0)
    np.testing.assert_allclose(past.now, np.log1p(recent_popularity(log, 4, 3.0 * DAY)), rtol=1e-5)
    later = torch.tensor([log.time_ts[-1] + 50 * DAY])
    assert past.stretch_of(later, 1).item() == len(past.worth) - 1
    assert past.stretch_of(None, 2).tolist() == [len(past.worth) - 1] * 2


def test_an_item_without_events_is_worth_the_mean_of_the_others() -> None:
    past = PastPopularity.of(log_of([0, 0, 1], [0.0, 1.0, 2.0]), 3, half_life_days=1.0)
    np.testing.assert_allclose(past.worth[:, 2], past.worth[:, :2].mean(1), rtol=1e-6)


def test_an_item_that_has_faded_to_nothing_is_not_an_item_without_events() -> None:
    past = PastPopularity.of(log_of([0, 0, 1, 1, 2], [0, 0.5, 199, 199.5, 200]), 4, half_life_days=1.0)
    assert past.worth[3, 0] > 0.5 > past.worth[3, 1] == 0.0  # it was all that there was, then
    assert past.now[0] == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(past.worth[:, 3], past.worth[:, :3].mean(1), rtol=1e-5)


def test_a_long_log_of_a_large_catalog_has_longer_stretches_instead_of_more_memory() -> None:
    past = PastPopularity.of(log_of([0, 1], [0.0, 100_000.0]), 400_000, half_life_days=1.0)
    assert past.worth.size <= 16_000_000 + 400_000
    assert past.length_s > 1000 * DAY
    assert past.note is not None
    assert "take a longer half-life, or a shorter log" in past.note
    assert PastPopularity.of(log_of([0, 1], [0.0, 100.0]), 2, half_life_days=1.0).note is None


def test_without_times_nothing_fades_or_it_is_refused() -> None:
    log = log_of([0, 0, 1], [0, 1, 2], kind="position")
    with pytest.raises(RecipeError, match="no times, only an order"):
        PastPopularity.of(log, 2, half_life_days=7.0)
    past = PastPopularity.of(log, 2, half_life_days=float("inf"))
    np.testing.assert_allclose(past.worth, np.log1p([[2.0, 1.0]]))
    assert past.stretch_of(torch.tensor([0.0, 5.0]), 2).tolist() == [0, 0]
    nothing = PastPopularity.of(log_of([], []), 2, half_life_days=7.0)
    assert not nothing.worth.any()


def make_asked(n_items: int = 6, seen: bool = True, shown: bool = False) -> Asked:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    return Asked(
        normal(4, 3),
        normal(n_items, 3),
        torch.tensor([0, 2, 3, 1]),
        torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64),
        torch.tensor(2.0, dtype=torch.float64, requires_grad=True),
        Seen(torch.tensor([[4], [0], [5], [1]]), torch.ones(4, 1) > 0) if seen else None,
        Shown(torch.tensor([[1, 4]] * 4), torch.tensor([[True, True]] * 3 + [[False, False]])) if shown else None,
        torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64) * DAY,
    )


def trend_over(asked: Asked) -> Trend:
    worth = torch.rand(3, len(asked.item_vec), generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 2
    return Trend(torch.tensor([0, 1, 2, 2]), worth, torch.tensor(0.8, dtype=torch.float64, requires_grad=True))


def logits_of(asked: Asked) -> Tensor:
    """(P, N) by the formula."""
    assert asked.trend is not None
    logits = asked.scale * asked.user_vec @ asked.item_vec.T
    logits = logits + asked.trend.weight * asked.trend.worth[asked.trend.stretch]
    if asked.seen is not None:
        for row, item in enumerate(asked.seen.item_idx[:, 0]):
            if item != asked.target[row]:
                logits = logits.index_put((torch.tensor([row]), item[None]), torch.tensor([-torch.inf]).to(logits))
    return logits


def with_trend(asked: Asked) -> Asked:
    return Asked(**{**vars(asked), "trend": trend_over(asked)})


def test_a_softmax_over_all_items_drawn_once_is_the_whole_softmax() -> None:
    asked = with_trend(make_asked())
    everything = DrawnNegatives(torch.arange(6), torch.zeros(6, dtype=torch.float64))
    each = torch.nn.functional.cross_entropy(logits_of(asked), asked.target, reduction="none")
    expected = (asked.weight * each).sum() / asked.weight.sum()
    found = sampled_softmax(asked, everything)
    torch.testing.assert_close(found, expected)
    assert asked.trend is not None
    one, other = (torch.autograd.grad(loss, asked.trend.weight)[0] for loss in (found, expected))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("candidates", ["all", "chosen"])
def test_label_smoothing_spreads_over_the_same_candidates(candidates: str) -> None:
    counts = np.array([3, 1, 2, 2, 1, 0])
    config = ObjectiveConfig.model_validate({"kind": "full", "label_smoothing": 0.2, "candidates": candidates})
    asked = with_trend(make_asked())
    if candidates == "chosen":  # histories hold chosen items alone
        asked = Asked(**{**vars(asked), "seen": Seen(torch.tensor([[4], [0], [4], [1]]), torch.ones(4, 1) > 0)})
    found = build_objective(config, counts)(asked, np.random.default_rng(0))
    logits = logits_of(asked)
    if candidates == "chosen":
        logits = logits[:, :5]
    each = []
    for place, row in enumerate(logits.log_softmax(1)):
        known = row[torch.isfinite(row)]
        each.append(-(0.8 * row[asked.target[place]] + 0.2 * known.mean()))
    expected = (asked.weight * torch.stack(each)).sum() / asked.weight.sum()
    torch.testing.assert_close(found, expected)


def test_divergence_of_two_passes_knows_the_trend() -> None:
    one, other = with_trend(make_asked()), with_trend(make_asked())
    other = Asked(**{**vars(other), "user_vec": other.user_vec + 0.3})
    expected = symmetric_kl(logits_of(one), logits_of(other), one.weight)
    torch.testing.assert_close(full_divergence(one, other), expected)
    torch.testing.assert_close(full_divergence(one, other, chunk=1), expected)


def test_a_click_in_a_list_is_told_beside_what_was_popular() -> None:
    asked = with_trend(make_asked(shown=True))
    assert asked.shown is not None
    none_drawn = torch.zeros(4, 2, dtype=torch.float64).masked_fill(~asked.shown.mask, -torch.inf)
    logits = logits_of(Asked(**{**vars(asked), "seen": None}))[:3]
    lists = torch.cat([asked.target[:3, None], asked.shown.item_idx[:3]], dim=1)
    each = -logits.gather(1, lists).log_softmax(1)[:, 0]
    expected = (asked.weight[:3] * each).sum() / asked.weight[:3].sum()
    torch.testing.assert_close(shown_softmax(asked, asked.shown.item_idx, none_drawn), expected)


def test_hard_negatives_are_hard_beside_it() -> None:
    asked = make_asked()
    worth = torch.zeros(3, 6, dtype=torch.float64)
    worth[:, 5] = 20.0  # nobody but the trend knows that it is the likeliest
    asked = replace(asked, trend=Trend(torch.tensor([0, 1, 2, 2]), worth, torch.tensor(1.0, dtype=torch.float64)))
    draws = [HardSampler(1, 4).draw(asked, np.random.default_rng(seed)).item_idx.item() for seed in range(100)]
    assert np.mean(np.array(draws) == 5) > 0.9


def test_taught_on_it_begins_where_it_was() -> None:
    past = PastPopularity.of(log_of([0, 1], [0.0, 1.0]), 2, half_life_days=1.0)
    objective = Matryoshka(WithTrend(FullSoftmax(), past), (2, 1), unit=True)
    assert go_on_from(objective, 2.5) is objective
    trend = trend_of(objective)
    assert trend is not None
    assert trend.weight.item() == 2.5
    assert [name for name, _ in objective.named_buffers()] == ["rest.worth"]  # so it moves to where the towers are
    plain = FullSoftmax()
    assert go_on_from(plain, 2.5) is plain


def test_its_weight_learns_how_much_fashion_explains() -> None:
    """Users who follow fashion alone: the weight grows, and vectors that say nothing are left as they were."""
    days = [0.1 * day for day in range(400)]
    items = [day // 40 % 4 for day in range(400)]  # another item is chosen each four days
    past = PastPopularity.of(log_of(items, days), 4, half_life_days=1.0)
    objective = WithTrend(build_objective(ObjectiveConfig(), np.full(4, 100)), past)
    assert trend_of(objective) is objective
    assert trend_of(objective.rest) is None
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.1)
    asked = Asked(
        torch.zeros(400, 2),
        torch.ones(4, 2),
        torch.tensor(items),
        torch.ones(400),
        torch.tensor(1.0),
        times=torch.tensor(days, dtype=torch.float64) * DAY,
    )
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective(asked, np.random.default_rng(0))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert objective.weight.item() > 1.0
