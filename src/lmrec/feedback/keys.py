"""API keys. Of a key only a hash is kept: who reads the database cannot use it.

A key is 32 random bytes, so one round of sha256 is enough: there is no dictionary to try (unlike with passwords).
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from lmrec.errors import InputError, nearest
from lmrec.feedback.audit import add_audit
from lmrec.feedback.checks import check_text
from lmrec.feedback.tables import KEYS

Scope: TypeAlias = Literal["read", "events", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
SECRET_PREFIX: Final = "lmrec_"  # noqa: S105  lets secret scanners find a key that was committed by mistake


@dataclass(frozen=True, slots=True)
class KeyRow:
    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    created_ts: float
    revoked_ts: float | None

    def as_dict(self) -> dict[str, Any]:
        """For people and machines; a row knows no secret."""
        return {
            "key_id": self.key_id,
            "name": self.name,
            "scopes": list(self.scopes),
            "created": self.created_ts,
            "revoked": self.revoked_ts,
        }


_BY_HASH = select(KEYS).where(KEYS.c.secret_hash == bindparam("secret_hash"), KEYS.c.revoked_ts.is_(None))


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is not stored yet."""

    key_id: str
    secret: str
    name: str
    scopes: tuple[Scope, ...]


def make_key(name: str, scopes: Sequence[Scope]) -> NewKey:
    check_text("the name of a key", name)
    for scope in scopes:
        if scope not in SCOPES:
            raise InputError(f"scope '{scope}' is unknown. {nearest(scope, SCOPES)}")
    if not scopes:
        raise InputError(f"key '{name}' has no scope and could do nothing; give at least one of {', '.join(SCOPES)}")
    wanted = tuple(scope for scope in SCOPES if scope in scopes)
    return NewKey(f"key_{secrets.token_hex(6)}", SECRET_PREFIX + secrets.token_urlsafe(32), name, wanted)


def add_key(connection: Connection, key: NewKey, by: str, now: float) -> None:
    values = {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": ",".join(key.scopes),
        "secret_hash": _hash(key.secret),
        "created_ts": now,
        "revoked_ts": None,
    }
    connection.execute(insert(KEYS), values)
    add_audit(connection, by, "add_key", key.key_id, {"name": key.name, "scopes": list(key.scopes)}, now)


def check_key(connection: Connection, secret: str) -> KeyRow | None:
    """The key, unless it is unknown or revoked."""
    row = connection.execute(_BY_HASH, {"secret_hash": _hash(secret)}).one_or_none()
    return None if row is None else _key(row)


def revoke_key(connection: Connection, key_id: str, by: str, now: float) -> bool:
    """Whether there was such a key in force."""
    in_force = (KEYS.c.key_id == key_id) & KEYS.c.revoked_ts.is_(None)
    if connection.execute(update(KEYS).where(in_force).values(revoked_ts=now)).rowcount == 0:
        return False
    add_audit(connection, by, "revoke_key", key_id, {}, now)
    return True


def keys(connection: Connection) -> list[KeyRow]:
    """All keys, also revoked ones, oldest first."""
    return [_key(row) for row in connection.execute(select(KEYS).order_by(KEYS.c.created_ts, KEYS.c.key_id))]


def has_keys(connection: Connection) -> bool:
    """Whether a key was ever made, revoked ones included: revoking the last key must not open the door to everybody."""
    return connection.execute(select(KEYS.c.key_id).limit(1)).first() is not None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key(row: Row[*tuple[Any, ...]]) -> KeyRow:
    scopes = cast(tuple[Scope, ...], tuple(row.scopes.split(",")))
    return KeyRow(row.key_id, row.name, scopes, row.created_ts, row.revoked_ts)
