"""Who answers whom: one generation for all, or one for each arm of an experiment, or one more in the shadow.

A user of an experiment's arm is answered by the arm's generation, always the same one. Who comes without a user id cannot
be given the same one again, so they are answered by what is served and count for no arm; for a shadow, which nobody
sees, that does not matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lmrec.feedback.assignment import Arm, Experiment, assign
from lmrec.fields import UserId
from lmrec.retrieval.live import LiveRecommender
from lmrec.service.fared import FaredCounts
from lmrec.service.popularity import LiveCounts


@dataclass(frozen=True, eq=False)
class Served:
    """A generation in memory. `created_ts`: when it was made; `since_ts`: since when this process serves it. `counts`: of
    the events that it has not learnt; fared: of the lists shown since, where they order candidates; only the watcher touches
    both."""

    generation: str
    live: LiveRecommender
    counts: LiveCounts
    created_ts: float
    since_ts: float
    fared: FaredCounts | None = None


@dataclass(frozen=True, eq=False)
class Lineup:
    """What is served, and the experiment that is in force. `others`: by name, the generations of its arms that are not
    the one served."""

    current: Served
    experiment: Experiment | None = None
    others: Mapping[str, Served] = field(default_factory=dict)

    @property
    def all_served(self) -> tuple[Served, ...]:
        """The one that is served comes last."""
        return (*self.others.values(), self.current)

    def find(self, generation: str) -> Served | None:
        return self.current if generation == self.current.generation else self.others.get(generation)

    def arm_of(self, user_id: UserId | None) -> Arm | None:
        """The arm that a user is answered by; None outside a split of users."""
        if self.experiment is None or self.experiment.mode != "split" or user_id is None:
            return None
        return assign(user_id, self.experiment)

    def answerer(self, arm: Arm | None) -> Served:
        return self.current if arm is None else self.find(arm.generation) or self.current

    def served_for(self, user_id: UserId | None) -> Served:
        return self.answerer(self.arm_of(user_id))

    def shadow_for(self, unit: str) -> Served | None:
        """Who is to be asked as well and not shown, for a user id, or a request id where there is no user."""
        if self.experiment is None or self.experiment.mode != "shadow":
            return None
        control, challenger = self.experiment.arms
        return self.answerer(challenger) if assign(unit, self.experiment) != control else None
