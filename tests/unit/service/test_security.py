"""Keys with scopes, remembered for a moment only; and who is answered without keys."""

import pytest

from lmrec.errors import InputError
from lmrec.feedback.store import Store
from lmrec.service.errors import ServiceError
from lmrec.service.security import LOCAL, SCOPES, Caller, KeyRing, check_binding, check_local, secret_of


def test_a_key_is_looked_up_then_remembered_then_looked_up_again(store: Store) -> None:
    now = [0.0]
    ring = KeyRing(store, clock=lambda: now[0])
    secret = store.add_key("shop", ["read", "events"])
    assert ring.remembered(secret) is None
    caller = ring.look_up(secret)
    assert caller is not None
    assert (caller.name, sorted(caller.scopes)) == ("shop", ["events", "read"])
    assert ring.remembered(secret) == caller
    store.revoke_key(caller.key_id or "")
    now[0] = 2.0
    assert ring.remembered(secret) is None, "another process revoked it: that counts after a second"
    assert ring.look_up(secret) is None


def test_what_is_revoked_here_is_refused_at_once(store: Store) -> None:
    ring = KeyRing(store)
    secret = store.add_key("shop", ["read"])
    caller = ring.look_up(secret)
    assert caller is not None
    store.revoke_key(caller.key_id or "")
    ring.forget()
    assert ring.remembered(secret) is None
    assert ring.look_up(secret) is None


def test_wrong_keys_are_not_remembered(store: Store) -> None:
    ring = KeyRing(store)
    for place in range(100):
        assert ring.look_up(f"lmrec_{place}") is None
    assert ring._callers == {}


def test_whether_there_are_keys_is_asked_again_after_a_moment(store: Store) -> None:
    now = [0.0]
    ring = KeyRing(store, clock=lambda: now[0])
    assert ring.knows_whether_keys() is None
    assert ring.look_up_whether_keys() is False
    store.add_key("shop", ["read"])
    assert ring.knows_whether_keys() is False
    now[0] = 2.0
    assert ring.knows_whether_keys() is None
    assert ring.look_up_whether_keys() is True


def test_admin_may_all_and_the_others_their_own() -> None:
    reader = Caller("shop", "key_1", frozenset({"read"}))
    admin = Caller("boss", "key_2", frozenset({"admin"}))
    assert [reader.may("read"), reader.may("events"), reader.may("admin")] == [True, False, False]
    assert all(caller.may(scope) for caller in (admin, LOCAL) for scope in SCOPES)


@pytest.mark.parametrize("header", [b"", b"Basic abc", b"lmrec_abc"])
def test_other_headers_hold_no_key(header: bytes) -> None:
    assert secret_of({b"authorization": header}) is None


@pytest.mark.parametrize("host", [b"127.0.0.1:8000", b"localhost", b"LOCALHOST:1", b"[::1]:8000", b"127.1.2.3"])
def test_this_machine_is_answered_without_keys(host: bytes) -> None:
    check_local({b"host": host})


@pytest.mark.parametrize("host", [b"shop.example", b"", b"127.0.0.1.evil.example", b"localhost.evil.example:80"])
def test_a_rebound_name_or_a_proxy_is_not(host: bytes) -> None:
    with pytest.raises(ServiceError, match="lmrec keys") as refused:
        check_local({b"host": host})
    assert refused.value.status == 403


def test_what_a_proxy_passes_on_is_not_this_machine() -> None:
    with pytest.raises(ServiceError, match="lmrec keys"):
        check_local({b"host": b"127.0.0.1:8000", b"x-forwarded-for": b"203.0.113.7"})


def test_only_keys_open_the_service_to_others() -> None:
    check_binding("127.0.0.1", has_keys=False)
    check_binding("0.0.0.0", has_keys=True)
    with pytest.raises(InputError, match="lmrec keys RUN add"):
        check_binding("0.0.0.0", has_keys=False)
