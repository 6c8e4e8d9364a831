"""Ten thousand broken bodies: none is a fault of ours, none hangs, and the service is as well after them as before."""

import http.client
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from .running import Running, running

pytestmark = pytest.mark.usefixtures("service_logs")

N_BODIES: Final = 10_000
PATIENCE_S: Final = 20.0

SOUND: Final[tuple[tuple[str, str, Any], ...]] = (
    ("POST", "/v1/recommendations", {"user_id": "u", "history": ["film1"], "k": 3, "filter": {"title": {"contains": "a"}}}),
    ("POST", "/v1/rankings", {"candidates": ["film1", "film2"], "user_id": "u", "history": ["film3"], "k": 2}),
    ("POST", "/v1/recommendations/batch", {"questions": [{"history": ["film1"], "k": 2}, {"k": 1}]}),
    ("POST", "/v1/similar", {"item_id": "film1", "k": 3, "fields": ["*"]}),
    ("POST", "/v1/search", {"words": "lighthouse", "k": 3, "history": ["film2"]}),
    ("POST", "/v1/explanations", {"item_id": "film1", "history": ["film2"], "words": False}),
    ("POST", "/v1/events", {"events": [{"event_id": "e1", "user_id": "u", "item_id": "film1", "kind": "click", "time": 1e9}]}),
    ("POST", "/v1/items", {"items": [{"item_id": "n1", "title": "New"}]}),
    ("PUT", "/v1/items/n2", {"title": "New", "description": "A tale."}),
    ("PUT", "/v1/rules/r1", {"kind": "boost", "item_ids": ["film1"], "factor": 2.0}),
    ("POST", "/v1/items/film5/flag", {"reason": "odd"}),
    ("POST", "/v1/experiments", {"name": "e", "generation": "0", "share": 0.5}),
    ("POST", "/v1/generations/rollback", {"why": "odd"}),
)  # fmt: skip
ODD: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 10**400, 1e308, -0.0, "", " ", "\x00", "\ud800", "\u202e", "x" * 5000, "' OR 1=1 --", "../../etc/passwd",
    [], {}, [[]], [{}], {"": ""}, {"$ref": "#"}, [None] * 300, {"not": {"not": {"not": {"not": 1}}}}, "NaN", "1e9999",
)  # fmt: skip
RAW: Final = (
    b"", b"{", b"]", b"null", b"0", b'"', b"NaN", b"[1e999]", b"\xff\xfe{}", b'{"a":1}{"b":2}', b"[" * 50_000, b'{"k":' * 3_000,
    b'{"k": 1' + b"0" * 5_000 + b"}", b"\x00" * 64, b"--boundary\r\n", b"k=3&user_id=u", b'{"user_id": "\\ud800"}',
)  # fmt: skip


@pytest.fixture(scope="module")
def service(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Path(shutil.copytree(fitted, tmp_path_factory.mktemp("malformed") / "run"))) as found:
        yield found


def broken(body: Any, rng: random.Random) -> Any:
    """The body with one thing wrong somewhere: a value put in the place of another, a name more, or one gone."""
    if isinstance(body, dict) and body and rng.random() < 0.85:
        name = rng.choice(list(body))
        way = rng.random()
        if way < 0.15:
            return {**body, rng.choice(["x", "", "K", "__proto__", "a" * 300]): rng.choice(ODD)}
        if way < 0.3:
            return {key: value for key, value in body.items() if key != name}
        return {**body, name: broken(body[name], rng)}
    if isinstance(body, list) and body and rng.random() < 0.7:
        return [*body[1:], broken(body[0], rng)] if rng.random() < 0.8 else body * 700
    return rng.choice(ODD)


def encoded(body: Any, rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return rng.choice(RAW)
    text = json.dumps(broken(body, rng)).encode()
    if rng.random() < 0.15:  # cut or flipped on the way
        at = rng.randrange(len(text))
        return (
            text[:at]
            if rng.random() < 0.5
            else text[:at] + bytes([text[at] ^ (1 << rng.randrange(8))]) + text[at + 1 :]
        )
    return text


def test_ten_thousand_malformed_bodies(service: Running) -> None:
    rng = random.Random(0)
    before = service.get("/readyz")
    address = urlsplit(str(service.client.base_url))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE_S)
    statuses: Counter[int] = Counter()
    slowest_s = 0.0
    for _ in range(N_BODIES):
        method, path, body = rng.choice(SOUND)
        sent = encoded(body, rng)
        began = time.monotonic()
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        slowest_s = max(slowest_s, time.monotonic() - began)
        statuses[response.status] += 1
        assert response.status < 500, (method, path, sent[:500], answer[:500])
        if response.status >= 400:
            error = json.loads(answer)["error"]
            assert error["code"], error
            assert error["message"], error
    connection.close()
    assert slowest_s < PATIENCE_S
    assert statuses[422] + statuses[400] > N_BODIES // 2, statuses
    assert service.client.get("/metrics").text.count('status="500"') == 0
    after = service.get("/readyz")
    assert (after["status"], after["problems"]) == (before["status"], [])
    assert service.recommend(history=["film1"], k=3)["items"]
