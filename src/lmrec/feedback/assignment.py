"""Who sees what in an experiment: users are dealt to arms by a hash, so that each stays where it is without being stored.

The same salt and user give the same arm, on any machine and in any process. Another salt deals all users anew, so that two
experiments do not share their luck. Kohavi, Tang & Xu 2020, Trustworthy Online Controlled Experiments, chapter 4.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final, Literal, Self, TypeAlias, get_args

from lmrec.errors import InputError

Mode: TypeAlias = Literal["split", "shadow"]
CONTROL: Final = "control"
CHALLENGER: Final = "challenger"
NAMES: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A name stands in addresses."""
MAX_NAME: Final = 100


@dataclass(frozen=True)
class Arm:
    """`generation` is what users of this arm are answered by; `share` (0 to 1) how many of the users it gets."""

    name: str
    generation: str
    share: float


@dataclass(frozen=True)
class Experiment:
    """Arms in an order that must not change while it runs; the first is the control. Shares sum to one.

    mode "split": each user is answered by their arm. "shadow": all are answered by the first of two arms, and of the
    share of the second one the second is asked too, for nobody to see.
    """

    name: str
    arms: tuple[Arm, ...]
    salt: str = ""
    mode: Mode = "split"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode) or (self.mode == "shadow" and len(self.arms) != 2):
            raise InputError(
                f"experiment '{self.name}' has the mode '{self.mode}' and {len(self.arms)} arms. Modes are split and "
                "shadow, and shadow has two arms"
            )
        names = [arm.name for arm in self.arms]
        if len(names) < 2 or len(set(names)) < len(names):
            raise InputError(
                f"experiment '{self.name}' has the arms {names}; it needs two or more with different names"
            )
        total = sum(arm.share for arm in self.arms)
        shares = [arm.share for arm in self.arms[self.mode == "shadow" :]]  # a shadow may fall on everybody
        if not min(shares) > 0 or not 0 <= self.arms[0].share <= 1 or not abs(total - 1.0) <= 1e-9:
            raise InputError(
                f"experiment '{self.name}' has shares of {[arm.share for arm in self.arms]}, which sum to {total:g}; each "
                "must be above 0 and all together 1"
            )

    @classmethod
    def of_two(cls, name: str, control: str, challenger: str, share: float, mode: Mode = "split") -> Self:
        """Generation `control` against `challenger`, which gets `share` of the users. Raises InputError for a name that no
        address can hold."""
        if not re.fullmatch(NAMES, name) or len(name) > MAX_NAME:
            raise InputError(
                f"'{name:.100}' cannot name an experiment. Give at most {MAX_NAME} letters, digits, dots, hyphens and "
                "underscores, a letter or digit first"
            )
        return cls(name, (Arm(CONTROL, control, 1.0 - share), Arm(CHALLENGER, challenger, share)), mode=mode)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From {"name", "salt", "mode", "arms": [{"name", "generation", "share"}, ...]}. Raises InputError for another
        shape."""
        try:
            arms = tuple(Arm(str(arm["name"]), str(arm["generation"]), float(arm["share"])) for arm in values["arms"])
            return cls(str(values["name"]), arms, str(values.get("salt", "")), values.get("mode", "split"))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"an experiment is {{name, salt, mode, arms: [{{name, generation, share}}, ...]}}; this is not one "
                f"({error!r})"
            ) from error

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` takes."""
        return asdict(self)

    @property
    def generations(self) -> tuple[str, ...]:
        """Those that must be at hand, the control's first, each once."""
        return tuple(dict.fromkeys(arm.generation for arm in self.arms))


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
