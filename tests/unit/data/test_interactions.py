"""A log's order: which of several events at one instant comes first."""

import numpy as np

from lmrec.data.interactions import Interactions


def test_in_given_order_no_two_events_of_a_user_share_a_time() -> None:
    users, times = [0, 0, 1, 0, 0, 1, 0], [5.0, 5.0, 5.0, 5.0, 5.0000001, 7.0, 9e8]
    log = Interactions.from_arrays(["a", "b"], users, range(7), times)
    ordered = log.in_given_order()
    assert ordered.tie_share == 0.0 < log.tie_share
    assert (np.diff(ordered.time_ts) >= 0).all()
    own = {user: ordered.item_idx[ordered.user_idx == user].tolist() for user in (0, 1)}
    assert own == {0: [0, 1, 3, 4, 6], 1: [2, 5]}, "each user's events stand as they were given"
    moved = ordered.time_ts[np.argsort(ordered.item_idx)] - times
    assert moved[[0, 2, 4, 5, 6]].tolist() == [0.0] * 5, "what shares no time, and the first that does, stays"
    assert 0 < moved[1] < moved[3] < 1e-7, "before the user's next instant"
    untied = Interactions.from_arrays(["a"], [0, 0], [1, 0], [3.0, 4.0], time_kind="position")
    assert untied.in_given_order().fingerprint == untied.fingerprint
