"""Logs longer than a model reads at once, cut so that all of them are learnt. numpy alone: rivals in their own environment
import it too."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def cut_long(user: Ints, item: Ints, length: int) -> tuple[Ints, Ints]:
    """(E,) users and items in time order -> the same log with long users cut into several, of `length` + 1 events at most.

    A model that reads `length` items learns what follows each of them, so a part begins with the event that the part before
    it ends with: each event but a user's first follows another one exactly once. Parts are cut from the newest event back,
    and the newest part of a user is the one that a model without cutting would learn from.

    >>> users, items = cut_long(np.zeros(6, np.int64), np.array([10, 11, 12, 13, 14, 15]), 2)
    >>> [items[users == one].tolist() for one in np.unique(users)]
    [[13, 14, 15], [11, 12, 13], [10, 11]]
    """
    by_user = np.argsort(user, kind="stable")
    ends = np.flatnonzero(np.diff(user[by_user], append=-1)) if len(user) else np.zeros(0, np.int64)
    sizes = np.diff(ends, prepend=-1)
    back = np.empty(len(user), np.int64)  # events of the user that come after
    back[by_user] = np.repeat(ends, sizes) - np.arange(len(user))
    part = back // length
    first = np.zeros(len(user), bool)
    first[by_user[ends - sizes + 1]] = True
    joint = (back > 0) & (back % length == 0)  # ends a part and begins the one after it
    place = np.concatenate([np.flatnonzero(~(joint & first)), np.flatnonzero(joint)])
    number = np.concatenate([part[~(joint & first)], part[joint] - 1])
    order = np.argsort(place, kind="stable")
    place, number = place[order], number[order]
    _, own = np.unique(np.stack([user[place], number]), axis=1, return_inverse=True)
    return own.astype(np.int64).reshape(-1), item[place]
