"""Lists by arm: each user's answered by their arm's generation, or once more by a shadow that nobody sees."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lmrec.feedback.assignment import Arm, Experiment
from lmrec.feedback.shown import ARM, EXPERIMENT, MS, SHADOW, Shown
from lmrec.service.lineup import Lineup, Served
from lmrec.service.recommending import Ask, Listed, answer_asks
from lmrec.service.users import Users


def answer_by_arm(asks: Sequence[Ask], lineup: Lineup, users: Users) -> list[Listed]:
    """(B,) answers, in order. Raises InputError as `answer_asks` does."""
    experiment = lineup.experiment
    if experiment is None:
        return answer_asks(asks, lineup.current, users)
    arms = [lineup.arm_of(ask.question.user_id) for ask in asks]
    answered = _answer_each(asks, [lineup.answerer(arm) for arm in arms], users)
    return [_marked(listed, experiment, arm, ms) for (listed, ms), arm in zip(answered, arms, strict=True)]


def answer_in_shadow(asked: Sequence[tuple[Ask, Shown, Served]], users: Users) -> list[Shown]:
    """(B,) what was shown, each with what its shadow would have shown written into its context."""
    plain = [_without_extras(ask) for ask, _, _ in asked]
    answered = _answer_each(plain, [served for _, _, served in asked], users)
    return [
        replace(shown, context={**shown.context, SHADOW: _record(listed.shown, ms)})
        for (_, shown, _), (listed, ms) in zip(asked, answered, strict=True)
    ]


def _answer_each(asks: Sequence[Ask], by: Sequence[Served], users: Users) -> list[tuple[Listed, float]]:
    """Each ask answered by its own generation, those of one together, with the milliseconds that their pass took."""
    found: dict[int, tuple[Listed, float]] = {}
    for served in dict.fromkeys(by):
        places = [place for place, own in enumerate(by) if own is served]
        start = time.perf_counter()
        answers = answer_asks([asks[place] for place in places], served, users)
        ms = round(1000 * (time.perf_counter() - start), 3)
        found.update((place, (listed, ms)) for place, listed in zip(places, answers, strict=True))
    return [found[place] for place in range(len(asks))]


def _marked(listed: Listed, experiment: Experiment, arm: Arm | None, ms: float) -> Listed:
    if arm is None and experiment.mode == "split":
        return listed
    context: dict[str, Any] = {**listed.shown.context, EXPERIMENT: experiment.name, MS: ms}
    body = listed.body
    if arm is not None:
        context[ARM] = arm.name
        body = {**body, "arm": arm.name}
    return Listed(body, replace(listed.shown, context=context))


def _record(shown: Shown, ms: float) -> dict[str, Any]:
    return {"generation": shown.generation, "item_ids": list(shown.item_ids), MS: ms}


def _without_extras(ask: Ask) -> Ask:
    return replace(ask, question=ask.question.model_copy(update={"explain": False, "fields": None}))
