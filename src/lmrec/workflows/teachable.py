"""Which runs have towers that a lesson could change."""

from lmrec.errors import InputError
from lmrec.retrieval.recommender import Recommender


def require_teachable(recommender: Recommender, path: str, verb: str, why_not: str) -> None:
    """Raises InputError where no towers of this one run answer by their scores.

    verb: what was asked for. why_not: why it is of no use where towers count nothing, and the way out.
    """
    if recommender.ensemble is not None:
        raise InputError(f"'{path}' is an ensemble; {verb} its members")
    if recommender.fusion.weights.ranks:
        raise InputError(f"'{path}' puts its parts together by ranks. Fit it with another fusion.method")
    if not recommender.checkpoint.fusion.towers:
        raise InputError(
            f"what is counted and bare words answer alone in '{path}', and towers count nothing there, so {why_not}"
        )
