"""Who may do what: keys with scopes, and the rule that without keys only this machine is answered.

Scopes: `read` asks for recommendations, search, items; `events` sends events; `admin` may do all, and alone sees what is
held of a user, changes items, rules, reviews and keys, and rolls back.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final, Literal, TypeAlias

from lmrec.errors import InputError
from lmrec.feedback.store import Store
from lmrec.service.errors import ServiceError

AccessScope: TypeAlias = Literal["read", "events", "admin"]
SCOPES: Final[tuple[AccessScope, ...]] = ("read", "events", "admin")

_REMEMBER_S = 1.0  # a key revoked by another process is refused after this
_RIGHT_S = 3_600.0  # so long a key that was right is asked about whatever wrong ones come from its address
_MAX_REMEMBERED = 1_000
_BEARER = "bearer "
_PROXIED = (b"x-forwarded-for", b"x-real-ip", b"forwarded", b"via")


@dataclass(frozen=True)
class Caller:
    """Who asks. `name` goes into the audit table, `key_id` into logs and rates; None: a person on this machine."""

    name: str
    key_id: str | None
    scopes: frozenset[str]

    def may(self, scope: AccessScope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


LOCAL: Final = Caller("local", None, frozenset(SCOPES))


class KeyRing:
    """The store's keys, each remembered for a moment so that a request does not cost a read."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._callers: OrderedDict[str, tuple[float, Caller]] = OrderedDict()
        self._has_keys: tuple[float, bool] | None = None
        self._lock = Lock()

    def remembered(self, secret: str) -> Caller | None:
        """The caller, if looked up a moment ago; costs nothing."""
        with self._lock:
            known = self._callers.get(secret)
            return known[1] if known is not None and known[0] > self._clock() else None

    def was_right(self, secret: str) -> bool:
        """Whether this key was in force when it was last looked up, not long ago: not somebody's guess."""
        with self._lock:
            known = self._callers.get(secret)
            return known is not None and known[0] + _RIGHT_S > self._clock()

    def look_up(self, secret: str) -> Caller | None:
        """The caller by the store; None for a key that is wrong or revoked."""
        row = self._store.check_key(secret)
        with self._lock:
            self._callers.pop(secret, None)
            if row is None:
                return None
            caller = Caller(row.name, row.key_id, frozenset(row.scopes))
            self._callers[secret] = (self._clock() + _REMEMBER_S, caller)
            if len(self._callers) > _MAX_REMEMBERED:
                self._callers.popitem(last=False)
            return caller

    def knows_whether_keys(self) -> bool | None:
        """Whether there are keys, if looked up a moment ago."""
        known = self._has_keys
        return known[1] if known is not None and known[0] > self._clock() else None

    def look_up_whether_keys(self) -> bool:
        found = self._store.has_keys()
        self._has_keys = (self._clock() + _REMEMBER_S, found)
        return found

    def forget(self) -> None:
        """After a change of keys: look again."""
        with self._lock:
            self._callers.clear()
            self._has_keys = None


def secret_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The key in `Authorization: Bearer KEY`; None where there is no such header.

    >>> secret_of({b"authorization": b"Bearer lmrec_abc"})
    'lmrec_abc'
    """
    value = headers.get(b"authorization", b"").decode("latin-1")
    return value[len(_BEARER) :].strip() if value.lower().startswith(_BEARER) else None


def check_local(headers: Mapping[bytes, bytes]) -> None:
    """Without keys only somebody who typed this machine's own name is answered.

    Binding to loopback alone would not do: a web page that is open in a browser here may rebind its name to 127.0.0.1,
    and a proxy in front may pass on the whole world. The Host header shows both, unless a proxy rewrites it; most then
    say for whom they ask. Raises ServiceError (403).
    """
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_loopback(_without_port(host)) or any(name in headers for name in _PROXIED):
        raise ServiceError(
            403,
            "no_keys",
            f"this request, for the host '{host[:100]}', may come from elsewhere, and without keys only this machine is "
            "answered. "
            "Make a key with `lmrec keys RUN add NAME --scope read` and send it as 'Authorization: Bearer KEY'",
        )


def check_binding(host: str, has_keys: bool) -> None:
    """Refuse to listen to the world without keys."""
    if not has_keys and not is_loopback(host):
        raise InputError(
            f"--host {host} would answer others than this machine, and there are no keys, so anybody could read and "
            "change everything. Make a key first with `lmrec keys RUN add NAME --scope read`, or use --host 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """
    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "shop.example")]
    [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
