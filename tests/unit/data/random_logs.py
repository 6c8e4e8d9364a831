"""Small random logs for the tests of the data room."""

import numpy as np
from hypothesis import strategies as st

from lmrec.data.interactions import Interactions

N_ITEMS = 8


@st.composite
def logs(draw: st.DrawFn, min_events: int = 1) -> Interactions:
    """A few users, a few items, coarse times with many ties."""
    n_users = draw(st.integers(1, 5))
    n_events = draw(st.integers(min_events, 60))
    seed = draw(st.integers(0, 2**32 - 1))
    n_instants = draw(st.integers(1, 40))
    rng = np.random.default_rng(seed)
    return Interactions.from_arrays(
        [f"u{user}" for user in range(n_users)],
        rng.integers(n_users, size=n_events),
        rng.integers(N_ITEMS, size=n_events),
        rng.integers(n_instants, size=n_events).astype(float),
        weight=rng.random(n_events),
    )
