"""The command line as others script against it: exit codes, formats, words on stderr, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from .conftest import Fitted, Invoke

COLUMNS = ["user_id", "item_id", "rank", "score"]


def sets(choices: list[str]) -> list[str]:
    return [word for choice in choices for word in ("--set", choice)]


def fit_words(folder: Path, out: Path, choices: list[str], *more: str) -> list[str]:
    tables = ["--items", str(folder / "items.csv"), "--interactions", str(folder / "events.csv")]
    return ["fit", *tables, "--out", str(out), "--quiet", *sets(choices), *more]


# --- before anything is read


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom lmrec.cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as done:\n    assert not done.code\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'polars', 'scipy', 'implicit'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert all(command in done.stdout for command in ("fit", "recommend", "similar", "evaluate", "inspect", "prepare"))


def test_candidates_are_ranked(invoke: Invoke, learnt: Fitted) -> None:
    words = ("rank", learnt.run, "--candidates", "film1, film9,film40,gone")
    result = invoke(*words, "--history", "film1,film2", "--json")
    answer = json.loads(result.stdout)
    whole = json.loads(
        invoke("recommend", learnt.run, "--history", "film1,film2", "--k", "64", "--include-seen", "--json").stdout
    )
    wanted = {"film1", "film9", "film40"}
    assert answer["items"] == [item for item in whole["items"] if item["item_id"] in wanted]
    assert (answer["unknown"], answer["n_history"]) == (["gone"], 2)
    assert "none of 1 candidates ('gone')" in result.stderr
    assert "film40" in invoke(*words, "--user", "user0").stdout
    assert "the order for a newcomer" in invoke(*words, "--user", "stranger").stderr
    assert "say for whom" in invoke(*words, code=2).stderr
    assert "say for whom" in invoke(*words, "--user", "user0", "--history", "film1", code=2).stderr
    assert (
        "none of the 1 candidates" in invoke("rank", learnt.run, "--candidates", "x", "--user", "user0", code=2).stderr
    )
    assert "--candidates is empty" in invoke("rank", learnt.run, "--candidates", ",", "--user", "user0", code=2).stderr


def test_usage_errors_are_wrong_input(invoke: Invoke) -> None:
    invoke("fit", code=2)
    invoke("no-such-command", code=2)
    invoke("recommend", "run", "--no-such-option", code=2)


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout.startswith("lmrec ")


def test_all_choices_are_listed(invoke: Invoke) -> None:
    rows = json.loads(invoke("recipe", "--json").stdout)
    assert {"key": "encoder.max_tokens", "default": "64"}.items() <= next(
        row for row in rows if row["key"] == "encoder.max_tokens"
    ).items()
    assert "encoder.max_tokens" in invoke("recipe").stdout


def test_known_data_and_models_are_listed(invoke: Invoke) -> None:
    names = {row["name"] for row in json.loads(invoke("data", "list", "--json").stdout)}
    assert {"movielens-100k", "all-MiniLM-L6-v2"} <= names
    assert "Did you mean 'movielens-100k'" in invoke("data", "fetch", "movielens-10k", code=2).stderr


# --- wrong input


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "encoder.max_token=3"], "Did you mean 'encoder.max_tokens'?"),
        (["--set", "encoder.pooling=max"], "encoder.pooling = 'max'"),
        (["--split", "tme"], "split.kind = 'tme'"),
        (["--map", "user=client"], "Did you mean 'user_id'"),
        (["--map", "user_id=client"], "there is no column 'client'"),
        (["--recipe", "none.toml"], "there is no recipe"),
        (["--set", "encoder.name=no/such-model"], "encoder.name 'no/such-model' could not be loaded"),
    ],
)
def test_wrong_choices_end_with_2_and_one_message(
    invoke: Invoke, world_folder: Path, tmp_path: Path, quick_choices: list[str], more: list[str], message: str
) -> None:
    result = invoke(*fit_words(world_folder, tmp_path / "run", quick_choices, *more), code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_tables_end_with_2(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("fit", "--items", "none.csv", "--interactions", "none.csv", "--out", tmp_path / "run", code=2)
    assert "none.csv" in result.stderr
    assert not (tmp_path / "run").exists()


def test_an_out_that_exists_is_refused_and_left_alone(
    invoke: Invoke, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    result = invoke(*fit_words(world_folder, tmp_path, quick_choices), code=2)
    assert "exists and is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_resuming_a_finished_run_or_none_is_refused(
    invoke: Invoke, learnt: Any, tmp_path: Path, learning_choices: list[str]
) -> None:
    before = (learnt.run / "run.json").read_bytes()
    result = invoke(*fit_words(learnt.folder, learnt.run, learning_choices, "--resume"), code=2)
    assert "is finished; there is nothing to resume" in result.stderr
    assert (learnt.run / "run.json").read_bytes() == before
    result = invoke(*fit_words(learnt.folder, tmp_path / "none", learning_choices, "--resume"), code=2)
    assert "there is no run folder" in result.stderr


def test_our_own_fault_is_1_with_a_traceback_to_report(
    invoke: Invoke, learnt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmrec.retrieval.recommender import Recommender

    def broken(self: Recommender, *args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a slip of ours")

    monkeypatch.setattr(Recommender, "recommend", broken)
    result = invoke("recommend", learnt.run, "--user", "user0", code=1)
    assert "this is our fault, not yours" in result.stderr
    assert "a slip of ours" in result.stderr


def test_ctrl_c_anywhere_is_130(invoke: Invoke, learnt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmrec.retrieval.recommender import Recommender

    def interrupted(self: Recommender, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recommender, "recommend", interrupted)
    assert "interrupted" in invoke("recommend", learnt.run, "--user", "user0", code=130).stderr


# --- recommend


def test_json_is_json_on_stdout_alone(invoke: Invoke, learnt: Any) -> None:
    answer = json.loads(invoke("recommend", learnt.run, "--user", "user0", "--k", "3", "--json").stdout)
    assert (answer["user_id"], answer["basis"], len(answer["items"])) == ("user0", "history", 3)
    assert set(answer["items"][0]) == {"item_id", "title", "score"}


def test_a_stranger_is_told_of_on_stderr_and_gets_a_list(invoke: Invoke, learnt: Any) -> None:
    result = invoke("recommend", learnt.run, "--user", "stranger", "--json")
    assert json.loads(result.stdout)["basis"] == "nothing"
    assert "1 of 1 users have no history in this run ('stranger')" in result.stderr


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_many_users_into_a_file(invoke: Invoke, learnt: Any, tmp_path: Path, ending: str) -> None:
    users = tmp_path / "users.csv"
    users.write_text("user_id,age\nuser3,20\nuser1,30\nuser3,20\n")
    out = tmp_path / f"lists.{ending}"
    result = invoke("recommend", learnt.run, "--users", users, "--k", "4", "--out", out)
    assert "2 lists written" in result.stderr
    read: dict[str, Callable[[Path], pl.DataFrame]] = {
        "csv": pl.read_csv,
        "parquet": pl.read_parquet,
        "jsonl": pl.read_ndjson,
    }
    frame = read[ending](out)
    assert frame.columns == COLUMNS
    assert frame["user_id"].to_list() == ["user3"] * 4 + ["user1"] * 4
    assert frame["rank"].to_list() == [1, 2, 3, 4] * 2
    assert frame["score"].dtype == pl.Float64


def test_users_may_be_lines_of_a_text_file_and_answers_one_json(invoke: Invoke, learnt: Any, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("user2\n\nuser5\n")
    found = json.loads(invoke("recommend", learnt.run, "--users", users, "--json").stdout)["recommendations"]
    assert [answer["user_id"] for answer in found] == ["user2", "user5"]


def test_a_history_of_somebody_never_seen(invoke: Invoke, learnt: Any) -> None:
    answer = json.loads(invoke("recommend", learnt.run, "--history", "film1, film2", "--json").stdout)
    assert (answer["user_id"], answer["n_history"]) == (None, 2)
    assert not {"film1", "film2"} & {item["item_id"] for item in answer["items"]}


def test_seen_items_come_back_when_asked_for(invoke: Invoke, learnt: Any) -> None:
    words = ("recommend", learnt.run, "--history", "film1,film2", "--k", "64", "--json")
    assert len(json.loads(invoke(*words).stdout)["items"]) == 62
    assert len(json.loads(invoke(*words, "--include-seen").stdout)["items"]) == 64


def test_an_unknown_item_is_named_with_the_nearest(invoke: Invoke, learnt: Any) -> None:
    assert "there is no item 'film_1'" in invoke("recommend", learnt.run, "--history", "film_1", code=2).stderr
    assert "Did you mean 'film" in invoke("similar", learnt.run, "--item", "film_1", code=2).stderr


@pytest.mark.parametrize("words", [(), ("--user", "a", "--text", "b"), ("--user", "a", "--history", "film1")])
def test_one_question_at_a_time(invoke: Invoke, learnt: Any, words: tuple[str, ...]) -> None:
    assert "say for whom" in invoke("recommend", learnt.run, *words, code=2).stderr


def test_a_wrong_ending_or_folder_is_refused_before_any_work(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("recommend", tmp_path / "no_run", "--user", "a", "--out", tmp_path / "lists.xlsx", code=2)
    assert "the ending '.xlsx' is unknown" in result.stderr
    result = invoke("recommend", tmp_path, "--user", "a", "--out", tmp_path / "no" / "lists.csv", code=2)
    assert "there is no folder" in result.stderr


def test_k_below_1_is_refused(invoke: Invoke, learnt: Any) -> None:
    assert "ask for at least 1" in invoke("recommend", learnt.run, "--user", "user0", "--k", "0", code=2).stderr


def test_items_added_after_training_are_candidates(invoke: Invoke, learnt: Any, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text("item_id,title,description\nnew1,The Funny Rocket,A merry tale of a galaxy.\n")
    words = ("recommend", learnt.run, "--user", "user0", "--k", "65", "--json", "--new-items", new)
    items = {item["item_id"]: item["title"] for item in json.loads(invoke(*words).stdout)["items"]}
    assert items["new1"] == "The Funny Rocket"


def test_words_audience_and_similar_answer(invoke: Invoke, learnt: Any) -> None:
    by_words = json.loads(invoke("recommend", learnt.run, "--text", "a funny rocket", "--json").stdout)
    assert by_words["basis"] == "text"
    users = json.loads(invoke("audience", learnt.run, "--text", "a funny rocket", "--k", "4", "--json").stdout)["users"]
    assert len(users) == 4
    items = json.loads(invoke("similar", learnt.run, "--item", "film1", "--k", "5", "--json").stdout)["items"]
    assert len(items) == 5
    assert "film" in invoke("similar", learnt.run, "--text", "a funny rocket").stdout
    assert "user" in invoke("audience", learnt.run, "--item", "film1").stdout


# --- the rest of a run's life


def test_a_run_can_be_inspected_judged_and_reported_again(invoke: Invoke, learnt: Any, tmp_path: Path) -> None:
    record = json.loads(invoke("inspect", learnt.run, "--json").stdout)
    assert record["status"] == "trained"
    assert "checkpoint/towers.safetensors" in record["files"]
    shown = invoke("inspect", learnt.run).stdout
    assert "{title}. {description}" in shown
    judged = json.loads(
        invoke("evaluate", learnt.run, "--json", "--quiet", *sets(['baselines.names=["popularity"]'])).stdout
    )
    assert judged["table"]["metric"] == "ndcg@10"
    page = tmp_path / "page.html"
    invoke("report", learnt.run, "--out", page)
    assert "</html>" in page.read_text(encoding="utf-8")
    refused = invoke("evaluate", learnt.run, "--set", "encoder.max_tokens=3", code=2)
    assert "cannot change after training" in refused.stderr


def test_prepare_writes_what_was_checked_and_trains_nothing(invoke: Invoke, world_folder: Path, tmp_path: Path) -> None:
    tables = ("--items", world_folder / "items.csv", "--interactions", world_folder / "events.csv")
    found = json.loads(invoke("prepare", *tables, "--out", tmp_path / "checked", "--json").stdout)
    assert found["proof"]["facts"]
    assert {"catalog.parquet", "interactions.parquet", "summary.json", "proof.json"} <= {
        path.name for path in (tmp_path / "checked").iterdir()
    }
    assert "Split 'time'" in invoke("prepare", *tables).stderr


def test_an_order_without_times_falls_back_to_the_last_event_and_says_so(
    invoke: Invoke, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    """And the judge, later and alone, splits as the fit did."""
    events = pl.read_csv(world_folder / "events.csv").rename({"timestamp": "position"})
    events.write_csv(tmp_path / "events.csv")
    (tmp_path / "items.csv").write_text((world_folder / "items.csv").read_text())
    result = invoke(*fit_words(tmp_path, tmp_path / "run", [*quick_choices, "training.tuned_epochs=0"]))
    assert "each user's last event is held out" in " ".join(result.stderr.split())
    assert (tmp_path / "run" / "report.html").exists()
    table = json.loads(invoke("evaluate", tmp_path / "run", "--json", "--quiet").stdout)["table"]
    assert table["form"]["split"] == "last"


def test_positions_and_a_split_by_time_do_not_go_together(
    invoke: Invoke, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    pl.read_csv(world_folder / "events.csv").rename({"timestamp": "position"}).write_csv(tmp_path / "events.csv")
    (tmp_path / "items.csv").write_text((world_folder / "items.csv").read_text())
    result = invoke(*fit_words(tmp_path, tmp_path / "run", quick_choices, "--split", "time"), code=2)
    assert "Use --split last" in result.stderr


def test_learning_from_everything_leaves_nothing_to_judge(
    invoke: Invoke, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    out = tmp_path / "run"
    words = fit_words(world_folder, out, [*quick_choices, "training.tuned_epochs=0"], "--split", "none", "--json")
    assert json.loads(invoke(*words).stdout)["run"] == str(out)
    record = json.loads((out / "run.json").read_text())
    assert any("choose epochs and weights; then all events are learnt" in note for note in record["notes"])
    assert record["training"]["refit_epochs"] > 0
    assert record["summary"]["n_train"] < record["summary"]["n_events"]
    assert not (out / "report.html").exists()
    assert "leaves nothing to judge on" in invoke("evaluate", out, code=2).stderr
    assert "not been judged yet" in invoke("report", out, code=2).stderr
    assert len(json.loads(invoke("recommend", out, "--user", "user0", "--json").stdout)["items"]) == 10


def test_sigint_leaves_a_resumable_run_and_resume_completes_it(
    invoke: Invoke, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    out = tmp_path / "run"
    choices = [*quick_choices, "training.frozen_epochs=40", "training.patience=40", "training.tuned_epochs=1"]
    command = [sys.executable, "-m", "lmrec.cli.app", *fit_words(world_folder, out, choices, "--no-judge")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 60
    while not (out / "training_state" / "state.json").exists() and process.poll() is None:
        assert time.monotonic() < deadline, "no epoch in a minute"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130, words
    assert "Continue with the same command and --resume" in " ".join(words.split())
    assert "Traceback" not in words
    assert "is training" in invoke("recommend", out, "--user", "user0", code=2).stderr
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    n_again = json.loads((out / "run.json").read_text())["training"]["refit_epochs"]
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        *(("frozen", epoch) for epoch in range(1, 41)),
        ("tuned", 1),
        *(("refit", epoch) for epoch in range(1, n_again + 1)),
    ]
    assert json.loads((out / "run.json").read_text())["status"] == "trained"
    assert not (out / "training_state").exists()


def test_resuming_with_other_choices_is_refused(
    invoke: Invoke, world_folder: Path, tmp_path: Path, quick_choices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmrec.training import trainer

    out = tmp_path / "run"
    real = trainer.Trainer.__init__

    def stop_at_once(self: trainer.Trainer, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **{**kwargs, "should_stop": lambda: True})

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "__init__", stop_at_once)
        invoke(*fit_words(world_folder, out, quick_choices), code=130)
    recipe = (out / "recipe.toml").read_text()
    result = invoke(*fit_words(world_folder, out, [*quick_choices, "training.seed=9"], "--resume"), code=2)
    assert "another recipe, seed or language model, or other data" in " ".join(result.stderr.split())
    assert (out / "recipe.toml").read_text() == recipe
    # What cannot change the weights may change.
    again = [*quick_choices, 'baselines.names=["item_knn"]']
    invoke(*fit_words(world_folder, out, again, "--resume", "--no-judge"))
