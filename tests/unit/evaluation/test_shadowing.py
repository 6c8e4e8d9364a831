"""What a shadow would have shown, beside what people saw."""

import pytest

from lmrec.evaluation.shadowing import Times, read_shadow
from lmrec.feedback.shown import Shown


def seen(request_id: str, user_id: str | None, items: str, shadow: str | None, ms: float = 2.0) -> Shown:
    """Each letter is an item."""
    context: dict[str, object] = {"ms": ms}
    if shadow is not None:
        context["shadow"] = {"generation": "0001", "item_ids": list(shadow), "ms": 2 * ms}
    return Shown(request_id, user_id, "0", tuple(items), 1.0, context)


def alone(*lists: Shown) -> list[tuple[Shown, tuple[str, ...]]]:
    """Nothing came of any of them."""
    return [(one, ()) for one in lists]


def test_overlap_first_places_times_and_what_would_have_been_lost() -> None:
    lists = [
        seen("r1", "ann", "abcd", "abcd", 1.0),
        seen("r2", "bob", "abcd", "efda", 3.0),
        seen("r3", None, "abcd", "wxyz", 5.0),
        seen("r4", "ann", "abcd", None, 100.0),
    ]
    followed = {"r1": {"b"}, "r2": {"a", "b"}, "r4": {"a"}}
    found = read_shadow((one, followed.get(one.request_id, ())) for one in lists)
    assert (found.lists, found.compared) == (4, 3)
    assert found.overlap == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.overlap_low < found.overlap < found.overlap_high
    assert found.same_first == pytest.approx(1 / 3)
    assert (found.followed, found.kept) == (3, 2)
    assert found.shown_times == Times(3.0, 4.8)
    assert found.shadow_times == Times(6.0, 9.6)


def test_lists_of_one_user_tell_as_much_as_one() -> None:
    many = [seen(f"r{n}", "ann" if n % 2 else "bob", "ab", "ab" if n % 2 else "xy") for n in range(200)]
    found = read_shadow(alone(*many))
    assert (found.overlap_low, found.overlap_high) == (0.0, 1.0)
    one = read_shadow(alone(seen("r1", "ann", "ab", "ab")))
    assert (one.overlap, one.overlap_high) == (1.0, 1.0)
    assert one.overlap_low < 0.5, "one user is no certainty"
    apart = read_shadow(alone(*(seen(f"r{n}", None, "ab", "ab" if n % 2 else "xy") for n in range(200))))
    assert apart.overlap_high - apart.overlap_low < 0.2


def test_nothing_seen_and_a_shop_that_sends_the_name_itself() -> None:
    assert read_shadow([]).shown_times is None
    own = Shown("r1", "ann", "0", ("a",), 1.0, {"shadow": "a word of the shop's", "ms": True})
    assert read_shadow(alone(own)).compared == 0
    assert read_shadow(alone(seen("r1", "ann", "", ""))).overlap == 1.0, "two empty lists are the same"
