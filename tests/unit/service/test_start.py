"""What `lmrec serve` does before it serves."""

import gc

import pytest

from lmrec.cli.serving import _objects_that_stay


def test_garbage_is_looked_for_again_whatever_happens() -> None:
    with _objects_that_stay():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    with pytest.raises(ImportError), _objects_that_stay():
        raise ImportError("no such module")
    assert gc.isenabled()
    gc.unfreeze()  # for the tests after this one
