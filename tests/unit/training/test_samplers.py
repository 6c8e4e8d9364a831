"""On a toy catalog: each sampler's correction makes the sum over the catalog right in the mean, and nothing less does."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lmrec.errors import RecipeError
from lmrec.fields import IntArray
from lmrec.recipe import load_recipe
from lmrec.training.batches import TrainBatch
from lmrec.training.learner import Learner
from lmrec.training.losses import AmongChosen, FullSoftmax, ObjectiveConfig, SampledSoftmax, WithShown, build_objective
from lmrec.training.objectives import (
    Asked,
    DrawnNegatives,
    Seen,
    Shown,
    full_softmax_plain,
    sampled_softmax,
    shown_softmax,
)
from lmrec.training.samplers import Sampler, SamplerConfig, ShownSampler, build_sampler, draw_from

N_ITEMS, N_TARGETS, WIDTH, N_DRAWS = 12, 6, 4, 500
COUNTS: IntArray = np.array([1, 2, 3, 5, 8, 13, 21, 34, 13, 5, 2, 1])  # each item has events, so in_batch can draw it
KINDS = ("uniform", "popularity", "in_batch", "mixed", "hard")


def make_asked(seed: int = 0, with_seen: bool = False) -> Asked:
    generator = torch.Generator().manual_seed(seed)
    user_vec = torch.randn(N_TARGETS, WIDTH, generator=generator, dtype=torch.float64)
    item_vec = torch.randn(N_ITEMS, WIDTH, generator=generator, dtype=torch.float64)
    seen = Seen(torch.tensor([[0, 7, 7]] * N_TARGETS), torch.tensor([[True, True, False]] * N_TARGETS))
    return Asked(
        user_vec,
        item_vec,
        torch.tensor([4, 5, 6, 7, 8, 5]),
        torch.ones(N_TARGETS, dtype=torch.float64),
        torch.tensor(0.7, dtype=torch.float64),
        seen if with_seen else None,
    )


def first_sum(asked: Asked, negatives: DrawnNegatives) -> float:
    """The estimated sum over the catalog for target 0: the exponential of its loss plus its own score."""
    right = asked.scale * asked.user_vec[0] @ asked.item_vec[asked.target[0]]
    alone = torch.zeros(N_TARGETS, dtype=torch.float64)
    alone[0] = 1.0
    return float((sampled_softmax(replace(asked, weight=alone), negatives) + right).exp())


def true_sum(asked: Asked) -> float:
    logits = asked.scale * asked.user_vec[0] @ asked.item_vec.T
    if asked.seen is not None:
        logits[[0, 7]] = -torch.inf  # target 0 is item 4
    return float(logits.exp().sum())


def average_sum(
    sampler: Sampler, asked: Asked, change: Callable[[DrawnNegatives], DrawnNegatives] = lambda drawn: drawn
) -> tuple[float, float]:
    """The mean of many estimated sums, and its standard error. Target 0 stays, the others are drawn as events are."""
    rng, edges = np.random.default_rng(1), np.cumsum(COUNTS / COUNTS.sum())
    found = []
    for _ in range(N_DRAWS):
        others = torch.from_numpy(draw_from(edges, N_TARGETS - 1, rng))
        asked = replace(asked, target=torch.cat([asked.target[:1], others]))
        found.append(first_sum(asked, change(sampler.draw(asked, rng))))
    return float(np.mean(found)), float(np.std(found) / N_DRAWS**0.5)


@pytest.mark.parametrize("with_seen", [False, True], ids=["plain", "seen items left out"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_corrected_sum_over_the_catalog_is_unbiased(kind: str, with_seen: bool) -> None:
    asked = make_asked(with_seen=with_seen)
    config = SamplerConfig.model_validate({"kind": kind, "n_negatives": 5, "n_queries": 2})
    mean, error = average_sum(build_sampler(config, COUNTS), asked)
    assert abs(mean - true_sum(asked)) < 4 * error
    assert error < 0.1 * true_sum(asked)  # sharp enough to notice a wrong correction


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "uniform"])
def test_without_the_correction_the_sum_is_wrong(kind: str) -> None:
    """The control: every draw counts N / M, as if it had been uniform."""

    def as_if_uniform(drawn: DrawnNegatives) -> DrawnNegatives:
        return replace(drawn, log_times=torch.full_like(drawn.log_times, float(np.log(5 / N_ITEMS))))

    asked = make_asked()
    asked = replace(
        asked, user_vec=asked.user_vec[:1].expand(N_TARGETS, -1)
    )  # so that hard draws are hard for target 0
    config = SamplerConfig.model_validate({"kind": kind, "n_negatives": 5, "exponent": 1.0})
    mean, error = average_sum(build_sampler(config, COUNTS), asked, as_if_uniform)
    assert abs(mean - true_sum(asked)) > 4 * error


@pytest.mark.parametrize("kind", KINDS)
def test_many_draws_end_at_the_full_softmax_and_its_gradient(kind: str) -> None:
    asked = make_asked(with_seen=True)
    asked = replace(
        asked, target=torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(12), COUNTS)))
    )
    asked = replace(asked, user_vec=torch.randn(len(asked.target), WIDTH, dtype=torch.float64).requires_grad_())
    asked = replace(asked, weight=torch.ones(len(asked.target), dtype=torch.float64))
    rows = torch.tensor([[0, 7]] * len(asked.target))
    asked = replace(asked, seen=Seen(rows, torch.ones_like(rows, dtype=torch.bool)))
    config = SamplerConfig.model_validate({"kind": kind, "n_negatives": 20_000})
    sampled = SampledSoftmax(build_sampler(config, COUNTS))(asked, np.random.default_rng(0))
    exact = full_softmax_plain(asked.user_vec, asked.item_vec, asked.target, asked.weight, asked.scale, asked.seen)
    assert sampled.item() == pytest.approx(exact.item(), rel=0.02)
    ours, theirs = (torch.autograd.grad(loss, asked.user_vec)[0] for loss in (sampled, exact))
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.995


def test_shown_draws_estimate_the_sum_over_their_list() -> None:
    asked = make_asked()
    lists = Shown(
        torch.tensor([[0, 1, 2, 3], [9, 10, 0, 0]] + [[0, 0, 0, 0]] * 4),
        torch.tensor([[True] * 4, [True, True, False, False]] + [[False] * 4] * 4),
    )
    right = asked.scale * (asked.user_vec * asked.item_vec[asked.target]).sum(1)
    logits = asked.scale * asked.user_vec @ asked.item_vec.T
    truth = (logits[0, [4, 0, 1, 2, 3]].exp().sum(), logits[1, [5, 9, 10]].exp().sum())
    whole = shown_softmax(asked, *ShownSampler(None).draw(lists, np.random.default_rng(0)))
    assert float(whole) == pytest.approx(float((truth[0].log() - right[0] + truth[1].log() - right[1]) / 2))
    silent = replace(asked, weight=torch.zeros_like(asked.weight))
    assert float(shown_softmax(silent, *ShownSampler(None).draw(lists, np.random.default_rng(0)))) == 0.0
    rng, sampler, found = np.random.default_rng(0), ShownSampler(2), []
    for _ in range(3000):
        items, log_times = sampler.draw(lists, rng)
        assert torch.isinf(log_times[2:]).all()
        others = (logits[:2].gather(1, items[:2]) - log_times[:2]).exp().sum(1)
        found.append(right[:2].exp() + others)
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / 3000**0.5
    for at in range(2):
        assert abs(mean[at] - truth[at]) < 4 * error[at]


def test_targets_of_no_list_add_nothing() -> None:
    asked = make_asked()
    nothing = Shown(torch.zeros(N_TARGETS, 1, dtype=torch.int64), torch.zeros(N_TARGETS, 1, dtype=torch.bool))
    rng = np.random.default_rng(0)
    plain = FullSoftmax()(asked, rng)
    assert WithShown(FullSoftmax(), 3.0, None)(replace(asked, shown=nothing), rng) == plain
    assert WithShown(FullSoftmax(), 3.0, 2)(replace(asked, shown=nothing), rng) == plain
    assert WithShown(FullSoftmax(), 3.0, None)(asked, rng) == plain


def test_items_that_nobody_chose_are_no_candidates_and_feel_nothing() -> None:
    chosen = np.arange(N_ITEMS) != 2
    asked, rng = make_asked(with_seen=True), np.random.default_rng(0)
    asked.item_vec.requires_grad_(True)
    loss = AmongChosen(FullSoftmax(), chosen)(asked, rng)
    (gradient,) = torch.autograd.grad(loss, asked.item_vec)
    assert not gradient[2].any()
    assert gradient[[1, 3, 9]].any(1).all()
    seen = Seen(torch.tensor([[0, 7, 2]] * N_TARGETS), torch.ones(N_TARGETS, 3, dtype=torch.bool))
    without = asked.user_vec, asked.item_vec, asked.target, asked.weight, asked.scale, seen
    torch.testing.assert_close(loss, full_softmax_plain(*without))


def test_the_catalog_of_candidates_is_what_the_recipe_says() -> None:
    counts = np.array([0, 3, 1, 0])
    assert isinstance(build_objective(ObjectiveConfig(), counts), AmongChosen)
    assert isinstance(build_objective(ObjectiveConfig(candidates="all"), counts), FullSoftmax)
    assert isinstance(build_objective(ObjectiveConfig(), counts + 1), FullSoftmax)
    among = build_objective(ObjectiveConfig(kind="sampled"), counts)
    assert isinstance(among, AmongChosen)
    assert isinstance(among.rest, SampledSoftmax)


def test_in_batch_never_draws_an_item_without_events_and_mixed_does() -> None:
    counts = np.array([0, 0, *COUNTS[2:]])
    asked, rng = make_asked(), np.random.default_rng(0)
    mixed = build_sampler(SamplerConfig(kind="mixed", n_negatives=400), counts).draw(asked, rng)
    assert {0, 1} <= set(mixed.item_idx.tolist())
    assert torch.isfinite(mixed.log_times).all()
    in_batch = build_sampler(SamplerConfig(kind="in_batch", n_negatives=400), counts).draw(asked, rng)
    assert set(in_batch.item_idx.tolist()) <= set(asked.target.tolist())


def test_a_large_catalog_is_sampled_by_itself_and_a_small_one_is_not() -> None:
    config = ObjectiveConfig(max_full_items=10)
    assert isinstance(build_objective(config, np.ones(10, np.int64)), FullSoftmax)
    assert isinstance(build_objective(config, np.ones(11, np.int64)), SampledSoftmax)
    assert isinstance(build_objective(ObjectiveConfig(shown=1.0), np.ones(11, np.int64)), WithShown)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (["objective.kind=full", "objective.sampler.kind=hard"], "without drawn negatives"),
        (["objective.shown_negatives=4"], "without objective.shown above 0"),
        (["objective.sampler.kind=harder"], "objective.sampler.kind"),
        (["objective.sampler.n_negative=3"], "Did you mean 'objective.sampler.n_negatives'"),
    ],
)
def test_choices_that_do_not_go_together_say_why(choices: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_recipe(overrides=choices)


@pytest.mark.parametrize("kind", KINDS)
def test_learning_on_drawn_negatives_lowers_the_loss_over_the_whole_catalog(
    kind: str, make_learner: Callable[..., Learner], world_batches: Callable[[int, int], list[TrainBatch]]
) -> None:
    batches = world_batches(0, 0)
    counts = np.bincount(np.concatenate([batch.target_idx.numpy() for batch in batches]), minlength=32)
    config = SamplerConfig.model_validate({"kind": kind, "n_negatives": 16})
    learner = make_learner(dropout=0.0, objective=SampledSoftmax(build_sampler(config, counts)))
    exact, rng = make_learner(dropout=0.0), np.random.default_rng(0)

    def whole_loss() -> float:
        exact.load_state_dict(learner.state_dict())
        with torch.no_grad():
            return float(np.mean([exact(batch, rng).item() for batch in batches]))

    before = whole_loss()
    optimizer = torch.optim.Adam(learner.towers.parameters(), lr=1e-2)
    for _ in range(3):
        for batch in batches:
            optimizer.zero_grad()
            learner(batch, rng).backward()
            optimizer.step()
    assert whole_loss() < before - 0.2
