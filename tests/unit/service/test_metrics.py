"""What the newest lists show together, the last hour, and Prometheus' text."""

import random
from collections import Counter

import pytest

from lmrec.service.metrics import ListStatistics, Metrics
from lmrec.service.traffic import Traffic


def test_shares_are_those_of_the_newest_lists_only() -> None:
    random.seed(1)
    statistics = ListStatistics(n_lists=20)
    lists = [([str(item) for item in random.sample(range(50), 5)], random.random() < 0.3) for _ in range(100)]
    for items, cold in lists:
        statistics.add(items, cold)
    newest = lists[-20:]
    different = Counter(item for items, _ in newest for item in items)
    assert statistics.coverage(50) == pytest.approx(len(different) / 50)
    assert statistics.cold_share() == pytest.approx(sum(cold for _, cold in newest) / 20)
    assert len(statistics._counts) == len(different), "what is no longer shown takes no memory"


def test_without_lists_shares_are_zero() -> None:
    assert (ListStatistics().cold_share(), ListStatistics().coverage(0)) == (0.0, 0.0)


def test_prometheus_gets_numbers_and_two_services_do_not_mix() -> None:
    first, second = Metrics(), Metrics()
    first.requests.labels("GET", "/readyz", "200").inc()
    first.watch("lmrec_items", "Items.", lambda: 7)
    text = first.render().decode()
    assert 'lmrec_requests_total{method="GET",route="/readyz",status="200"} 1.0' in text
    assert "lmrec_items 7.0" in text
    assert "readyz" not in second.render().decode()


def test_traffic_keeps_an_hour_by_the_minute() -> None:
    now = [600.0]
    traffic = Traffic(clock=lambda: now[0])
    traffic.add("GET /a", 200, 0.010)
    traffic.add("GET /a", 503, 0.030)
    now[0] = 660.0
    traffic.add("POST /b", 200, 0.020)
    assert traffic.minutes() == [
        (600.0, {"2xx": 1, "5xx": 1}, {"GET /a": 2}),
        (660.0, {"2xx": 1}, {"POST /b": 1}),
    ]
    assert [(times.route, times.n, times.p99_ms) for times in traffic.times()] == [
        ("GET /a", 2, 30.0),
        ("POST /b", 1, 20.0),
    ]
    now[0] = 600.0 + 3_630
    assert [start for start, _, _ in traffic.minutes()] == [660.0]
