"""Two generations side by side, as clients meet it: users keep their arm, a shadow is asked and not shown, and it ends."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lmrec.artifacts.generation import promote, read_serving, rollback
from lmrec.cli.app import app
from lmrec.feedback.assignment import Experiment, assign
from lmrec.service.schemas.answers import ExperimentList, ExperimentRead, RecommendationAnswer

from .running import NEW_ITEM, Running, new_generation, running, until

pytestmark = pytest.mark.usefixtures("service_logs")

USERS = [f"visitor{n}" for n in range(24)]


@pytest.fixture
def other(run: Path) -> str:
    """A second generation, which ranks differently: its vectors are those of the first turned around."""
    from safetensors.numpy import load_file, save_file

    name = new_generation(run)
    file = run / "generations" / name / "checkpoint" / "towers.safetensors"
    weights = load_file(file)
    save_file({key: -value if "residual" in key or "user" in key else value for key, value in weights.items()}, file)
    return name


@pytest.fixture
def own(run: Path, other: str) -> Iterator[Running]:
    with running(run) as service:
        yield service


def start(service: Running, **question: Any) -> Any:
    return service.post("/v1/experiments", {"name": "first", "generation": "0001", **question})


def arms_of(service: Running) -> dict[str, tuple[str | None, str]]:
    answers = {user: service.recommend(user_id=user, k=3) for user in USERS}
    return {user: (answer.get("arm"), answer["generation"]) for user, answer in answers.items()}


def test_users_are_split_keep_their_arm_and_clicks_are_counted(run: Path, other: str) -> None:
    dealt = {user: assign(user, Experiment.of_two("first", "0", other, 0.5)) for user in USERS}
    wanted = {user: (arm.name, arm.generation) for user, arm in dealt.items()}
    assert {arm for arm, _ in wanted.values()} == {"control", "challenger"}
    with running(run) as service:
        assert set(arms_of(service).values()) == {(None, "0")}
        assert start(service, share=0.5)["in_force"]
        assert arms_of(service) == wanted, "in force once it is answered"
        assert "arm" not in service.recommend(k=3), "nobody in particular is in no arm"
        service.put("/v1/items/new", NEW_ITEM)
        for user in USERS[:8]:
            assert "new" in service.shown(user_id=user), "both generations have what was put since"
        service.delete("/v1/items/film3")
        assert not any("film3" in service.shown(user_id=user) for user in USERS[:8])
        service.put("/v1/rules/hide", {"kind": "must_not_show", "item_ids": ["film4"]})
        assert not any("film4" in service.shown(user_id=user) for user in USERS[:8])
        challenged = next(user for user, (arm, _) in wanted.items() if arm == "challenger")
        explained = service.post("/v1/explanations", {"item_id": "film1", "user_id": challenged, "history": ["film0"]})
        assert explained["generation"] == other, "who made the list explains it"
    with running(run) as service:
        until(lambda: service.get("/v1/experiments/first")["in_force"])
        assert arms_of(service) == wanted, "also after a restart"
        for user in USERS:
            answer = RecommendationAnswer.model_validate(service.recommend(user_id=user, k=3))
            if answer.arm == "challenger":
                sent = {"user_id": user, "item_id": answer.items[0].item_id, "kind": "click"}
                service.post("/v1/events", {**sent, "request_id": answer.request_id})
        service.recommend(user_id=challenged, k=3, context={"page": "console"})  # tried out, shown to nobody
        n_lists = sum(arm == "challenger" for arm, _ in wanted.values())
        until(lambda: service.get("/v1/experiments/first")["split"]["arms"][1]["successes"] == n_lists)
        found = ExperimentRead.model_validate(service.get("/v1/experiments/first"))
        assert found.split is not None
        assert [(arm.arm, arm.users) for arm in found.split.arms] == [
            ("control", len(USERS) - n_lists),
            ("challenger", n_lists),
        ]
        assert found.split.arms[0].successes == 0
        assert found.split.differences[0].mean > 0
        assert not any("saw more than one" in warning for warning in found.split.warnings)


def test_a_shadow_is_asked_and_its_lists_are_kept_and_not_shown(own: Running, other: str) -> None:
    start(own, mode="shadow", share=1.0)
    answers = {user: own.recommend(user_id=user, history=["film1", "film2"], k=5) for user in USERS}
    assert {answer["generation"] for answer in answers.values()} == {"0"}
    assert all("arm" not in answer for answer in answers.values())
    until(lambda: own.get("/v1/experiments/first")["shadow"]["compared"] == len(USERS))
    found = ExperimentRead.model_validate(own.get("/v1/experiments/first"))
    assert found.shadow is not None
    assert found.split is None
    assert 0.0 <= found.shadow.overlap < 1.0, "the other one ranks differently"
    assert found.shadow.shown_times is not None
    assert found.shadow.shadow_times is not None
    assert found.shadow.shadow_times.p50_ms > 0
    (kept,) = own.get(f"/v1/users/{USERS[0]}")["shown"]
    assert kept["item_ids"] == [item["item_id"] for item in answers[USERS[0]]["items"]]
    assert kept["context"]["shadow"]["generation"] == other
    assert len(kept["context"]["shadow"]["item_ids"]) == 5
    own.delete(f"/v1/users/{USERS[0]}")
    assert own.get("/v1/experiments/first")["shadow"]["compared"] == len(USERS) - 1


def test_a_shadow_that_fails_spoils_no_answer(own: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    start(own, mode="shadow", share=1.0)
    shadow = own.state.serving.lineup.shadow_for("anybody")
    assert shadow is not None

    def broken(*_: object) -> object:
        raise RuntimeError("the shadow is broken")

    monkeypatch.setattr(shadow.live, "recommend", broken)
    for user in USERS[:4]:
        assert own.recommend(user_id=user, k=3)["items"]
    until(lambda: own.get("/v1/experiments/first")["shadow"]["lists"] == 4)
    assert own.get("/v1/experiments/first")["shadow"]["compared"] == 0
    assert 'lmrec_failures_total{work="shadow"} 4.0' in own.client.get("/metrics").text


def test_a_rollback_ends_it_and_nobody_is_left_behind(own: Running, run: Path, other: str) -> None:
    promote(run, other, "better")
    until(lambda: own.recommend(k=1)["generation"] == other)
    own.post("/v1/experiments", {"name": "back", "generation": "0", "share": 0.5})
    assert {generation for _, generation in arms_of(own).values()} == {"0", other}
    rollback(run, "fewer clicks")
    until(lambda: not own.get("/v1/experiments/back")["running"])
    until(
        lambda: own.recommend(k=1)["generation"] == "0"
    )  # it is ended before the swap, so that nobody is dealt an old arm
    assert set(arms_of(own).values()) == {(None, "0")}
    ended = own.get("/v1/experiments/back")
    assert "generation 0 came to be served" in ended["why"]
    assert own.get("/v1/audit")["entries"][0]["action"] == "end_experiment"


def test_the_challenger_can_win(own: Running, run: Path, other: str) -> None:
    start(own)
    answer = own.post("/v1/experiments/first/end", {"why": "more clicks", "promote": True})
    assert (answer["running"], answer["why"], answer["in_force"]) == (False, "more clicks", False)
    assert set(arms_of(own).values()) == {(None, other)}
    assert read_serving(run) == other
    assert own.get("/v1/audit")["entries"][0]["action"] == "promote"
    again = own.client.post("/v1/experiments/first/end", json={"why": "again"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "experiment")
    assert own.post("/v1/generations/rollback", {"why": "it was not"})["generation"] == "0"


def test_wrong_experiments_are_refused(own: Running, run: Path) -> None:
    def refused(status: int, **question: Any) -> str:
        response = own.client.post("/v1/experiments", json={"name": "first", "generation": "0001", **question})
        assert response.status_code == status, response.text
        return str(response.json()["error"]["message"])

    assert "'9999'" in refused(404, generation="9999")
    assert "all together 1" in refused(422, share=1.0)
    refused(422, name="a b")
    assert own.client.get("/v1/experiments/nobody").status_code == 404
    start(own)
    assert "'first' is running" in refused(409, name="second")
    listed = ExperimentList.model_validate(own.get("/v1/experiments"))
    assert [(row.name, row.running) for row in listed.experiments] == [("first", True)]
    own.post("/v1/experiments/first/end", {"why": "enough"})
    assert "already" in refused(422)


def test_a_challenger_that_cannot_be_loaded_leaves_all_with_what_is_served(own: Running, run: Path, other: str) -> None:
    file = run / "generations" / other / "checkpoint" / "towers.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    own.state.serving._retry_s = 0.05
    refused = own.client.post("/v1/experiments", json={"name": "broken", "generation": other})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "experiment")
    assert not own.get("/v1/experiments/broken")["running"]
    assert own.get("/readyz")["problems"] == []
    own.state.store.start_experiment(Experiment.of_two("first", "0", other, 0.5))  # as the command line does it
    until(lambda: own.get("/readyz")["problems"] != [])
    assert set(arms_of(own).values()) == {(None, "0")}
    assert any("'first' is not in force" in problem for problem in own.get("/readyz")["problems"])
    file.write_bytes(whole)
    until(lambda: own.get("/v1/experiments/first")["in_force"])
    assert own.get("/readyz")["problems"] == []


def test_by_command_and_updates_wait(own: Running, run: Path, other: str) -> None:
    def lmrec(*arguments: str) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result

    assert "none" in lmrec("experiment", str(run), "list").output
    lmrec("experiment", str(run), "start", "quiet", "--generation", other, "--shadow", "--share", "1")
    until(lambda: own.get("/v1/experiments/quiet")["in_force"])
    own.recommend(user_id="ann", k=3)
    until(lambda: own.get("/v1/experiments/quiet")["shadow"]["compared"] == 1)
    assert json.loads(lmrec("experiment", str(run), "show", "quiet", "--json").stdout)["shadow"]["compared"] == 1
    assert "overlap" in lmrec("experiment", str(run), "show", "quiet").stdout
    events = [{"user_id": f"u{n}", "item_id": f"film{n}", "kind": "click"} for n in range(4)]
    own.post("/v1/events", {"events": events})
    waiting = json.loads(lmrec("update", str(run), "--force", "--json", "--quiet").stdout)
    assert waiting["status"] == "waiting"
    assert "'quiet' is running" in waiting["reason"]
    lmrec("experiment", str(run), "end", "quiet", "--why", "as quick, and different")
    until(lambda: own.state.serving.lineup.experiment is None)
    lmrec("experiment", str(run), "start", "loud", "--generation", other)
    until(lambda: own.get("/v1/experiments/loud")["in_force"])
    own.recommend(user_id="ann", k=3)
    until(lambda: own.get("/v1/experiments/loud")["split"]["arms"] != [])
    assert "nothing to compare" in lmrec("experiment", str(run), "show", "loud").output
    assert "split, running" in lmrec("experiment", str(run), "list").output
    compared = lmrec("experiment", str(run), "compare", "--days", "400").output
    assert "though 400 days were asked for" in " ".join(compared.split())
    assert "were asked for" not in lmrec("experiment", str(run), "compare", "--days", "0.5").output
    lmrec("experiment", str(run), "end", "loud", "--why", "won", "--promote")
    until(lambda: own.recommend(k=1)["generation"] == other)
    wrong = CliRunner().invoke(app, ["experiment", str(run), "end", "loud", "--why", "again"])
    assert wrong.exit_code == 2
    assert "no experiment 'loud' is running" in wrong.output
    assert CliRunner().invoke(app, ["experiment", str(run), "start", "x", "--generation", "7777"]).exit_code == 2


def test_a_name_that_no_address_can_hold_is_refused_by_command(run: Path, other: str) -> None:
    result = CliRunner().invoke(app, ["experiment", str(run), "start", "a b/c", "--generation", other])
    assert result.exit_code == 2
    assert "cannot name an experiment" in result.output
