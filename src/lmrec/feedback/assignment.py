"""Who sees what in an experiment: users are dealt to arms by a hash, so that each stays where it is without being stored.

The same salt and user give the same arm, on any machine and in any process. Another salt deals all users anew, so that two
experiments do not share their luck. Kohavi, Tang & Xu 2020, Trustworthy Online Controlled Experiments, chapter 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

from lmrec.errors import InputError


@dataclass(frozen=True)
class Arm:
    """`generation` is what users of this arm are answered by; `share` (0 to 1) how many of the users it gets."""

    name: str
    generation: str
    share: float


@dataclass(frozen=True)
class Experiment:
    """Arms in an order that must not change while it runs. Shares sum to one."""

    name: str
    arms: tuple[Arm, ...]
    salt: str = ""

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(names) < 2 or len(set(names)) < len(names):
            raise InputError(
                f"experiment '{self.name}' has the arms {names}; it needs two or more with different names"
            )
        total = sum(arm.share for arm in self.arms)
        if min(arm.share for arm in self.arms) <= 0 or abs(total - 1.0) > 1e-9:
            raise InputError(
                f"experiment '{self.name}' has shares of {[arm.share for arm in self.arms]}, which sum to {total:g}; each "
                "must be above 0 and all together 1"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From {"name", "salt", "arms": [{"name", "generation", "share"}, ...]}. Raises InputError for another shape."""
        try:
            arms = tuple(Arm(str(arm["name"]), str(arm["generation"]), float(arm["share"])) for arm in values["arms"])
            return cls(str(values["name"]), arms, str(values.get("salt", "")))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"an experiment is {{name, salt, arms: [{{name, generation, share}}, ...]}}; this is not one ({error!r})"
            ) from error


def assign(user_id: str, experiment: Experiment) -> Arm:
    """The arm of a user, the same for as long as the experiment's name, salt and shares are."""
    place = unit_hash(f"{experiment.name}\x1f{experiment.salt}\x1f{user_id}")
    reached = 0.0
    for arm in experiment.arms:
        reached += arm.share
        if place < reached:
            return arm
    return experiment.arms[-1]  # shares that sum to a hair less than one


def unit_hash(text: str) -> float:
    """A number in [0, 1) that looks random and is always the same for the same text.

    >>> round(unit_hash("user1"), 4) == round(unit_hash("user1"), 4), 0 <= unit_hash("") < 1
    (True, True)
    """
    # 53 bits are what a float holds: more would round up to 1.
    return (int.from_bytes(sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 11) / 2**53
