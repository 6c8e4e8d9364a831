"""The console as a person meets it: a real Chromium, a real service, a tiny run."""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, Request, expect

from lmrec.artifacts.generation import finish_generation, new_generation_folder, promote
from lmrec.feedback.assignment import Experiment, assign
from lmrec.feedback.events import Event
from lmrec.feedback.shown import Shown
from lmrec.service.routes.console import FOLDER

from .conftest import Service, Visit, serving, visiting

VIEWS = ["recommend", "catalog", "traffic", "generations", "experiments", "rules", "reviews", "users"]
HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


def titles(page: Page) -> list[str]:
    return page.locator(".ranked .item-name a").all_text_contents()


def panel(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def confirm(page: Page, action: str, written: str | None = None) -> None:
    dialog = page.get_by_role("dialog")
    if written is not None:
        dialog.get_by_role("textbox").fill(written)
    dialog.get_by_role("button", name=action).click()


# ---- the files


def test_the_files_are_served_and_need_nothing_inline_and_nothing_from_elsewhere(service: Service) -> None:
    page = service.api.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|https?://", page.text)
    for file in FOLDER.rglob("*.*"):
        answer = service.api.get(f"/{file.relative_to(FOLDER).as_posix()}" if file.name != "index.html" else "/")
        assert answer.status_code == 200, file
        if file.suffix == ".js":
            assert answer.headers["content-type"].startswith("text/javascript")
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", answer.text), file


# ---- recommend


def test_a_user_is_found_and_each_recommendation_can_be_explained(visit: Visit, service: Service) -> None:
    page = visit.go("recommend")
    find = page.get_by_role("combobox", name="User id")
    find.fill("user1")
    expect(page.get_by_role("option").first).to_have_text("user1")
    find.press("ArrowDown")
    find.press("Enter")
    expect(page.locator(".ranked > li")).to_have_count(10)
    expect(page.locator(".past > li").first).to_be_visible()
    assert page.url.endswith("#/recommend?user=user1")
    answer = service.api.post("/v1/recommendations", json={"user_id": "user1", "k": 10}).json()
    assert titles(page) == [item["title"] for item in answer["items"]]
    expect(page.locator(".basis")).to_contain_text(f"From {answer['n_history']} items of history")

    page.get_by_role("button", name=f"Why {answer['items'][0]['title']}").click()
    why = page.locator(".why:visible")
    question = {"user_id": "user1", "item_id": answer["items"][0]["item_id"]}
    reasons = service.api.post("/v1/explanations", json=question).json()
    expect(why.locator(".moved .sum b")).to_have_text(f"{reasons['score']:.2f}".replace("-", "−"))
    expect(why.locator(".word")).to_have_count(len(reasons["words"]))
    strongest = max(reasons["contributions"], key=lambda one: abs(one["contribution"]))
    expect(why.locator(".moved li").first).to_contain_text(strongest["title"])


def test_a_list_takes_no_request_for_each_of_its_items(visit: Visit, service: Service) -> None:
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    user = service.api.get("/v1/users", params={"limit": 1}).json()["user_ids"][0]
    page = visit.go(f"recommend?user={user}")
    expect(page.locator("ol.ranked .facts").first).not_to_be_empty()
    expect(page.locator("ul.past .facts").last).not_to_be_empty()
    about_items = [url for url in asked if "/v1/items" in url]
    assert len(about_items) <= 1, about_items


def test_options_change_the_list(visit: Visit) -> None:
    page = visit.go("recommend?user=user2")
    page.get_by_text("Options").click()
    page.get_by_label("Length").select_option("5")
    expect(page.locator(".ranked > li")).to_have_count(5)
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_label("Column").select_option("topic")
    page.get_by_role("textbox", name="Value").fill("jungle")
    expect(page.locator(".ranked .facts", has_text="jungle")).to_have_count(5)
    page.get_by_role("textbox", name="Value").fill("nowhere")
    expect(page.get_by_text("Nothing is left to show")).to_be_visible()


def test_what_they_had_already_is_left_out_or_shown_and_reasons_hear_the_same(visit: Visit, service: Service) -> None:
    told: list[dict[str, Any]] = []

    def hear(sent: Request) -> None:
        if "/v1/explanations" in sent.url:
            told.append(sent.post_data_json or {})

    visit.page.on("request", hear)
    had = set(service.api.get("/v1/users/user2").json()["history"])
    page = visit.go("recommend?user=user2")
    page.get_by_text("Options").click()
    page.get_by_label("Length").select_option("50")
    expect(page.locator(".ranked > li")).to_have_count(32 - len(had))  # the run was judged without them
    page.get_by_label("What they had already").select_option("Among the others")
    expect(page.locator(".ranked > li")).to_have_count(32)
    page.get_by_role("button", name="Why").first.click()
    expect(page.locator(".why .because").first).to_be_visible()
    assert told[0]["exclude_seen"] is False
    page.get_by_label("What they had already").select_option("Left out")
    expect(page.locator(".ranked > li")).to_have_count(32 - len(had))


def test_somebody_is_made_up_of_items_and_the_address_keeps_them(visit: Visit) -> None:
    page = visit.go("recommend")
    page.get_by_role("radio", name="A made-up user").check()
    find = page.get_by_role("combobox", name="Add an item")
    for _ in range(2):
        find.fill("Jaguar")
        expect(page.get_by_role("option").first).to_contain_text("Jaguar")
        page.get_by_role("option").first.click()
    expect(page.locator(".chips li")).to_have_count(1)  # the same one twice is one
    expect(page.locator(".ranked > li")).to_have_count(10)
    first = titles(page)[0]
    page.get_by_role("button", name=f"Add {first} to the made-up history").click()
    expect(page.locator(".chips li")).to_have_count(2)
    expect(page.locator(".ranked .item-name a", has_text=first)).to_have_count(0)
    page.reload()
    expect(page.locator(".chips li")).to_have_count(2)
    page.get_by_role("button", name=f"Remove {first}").click()
    expect(page.locator(".basis")).to_contain_text("From 1 item of history")


def test_words_alone_and_a_stranger(visit: Visit) -> None:
    page = visit.go("recommend")
    page.get_by_role("button", name="Show what a stranger gets").click()
    expect(page.locator(".basis")).to_contain_text("popular now")
    page.get_by_role("radio", name="In words").check()
    page.get_by_label("What somebody says they want").fill("a wild tale of a reef")
    expect(page.locator(".basis")).to_contain_text("From the words alone")
    page.get_by_role("button", name=re.compile("^Why")).first.click()
    why = page.locator(".why:visible")
    expect(why.locator(".moved li").first).to_contain_text("The words asked with")
    expect(why.locator(".words").first).to_have_text("a wild tale of a reef")
    expect(why).to_contain_text("There is no past item to take away.")


# ---- catalog


def test_an_item_is_added_ranks_is_edited_and_deleted(visit: Visit, service: Service) -> None:
    page = visit.go("catalog")
    page.get_by_role("link", name="New item").click()
    page.get_by_label("item_id").fill("fresh/1")  # a slash must not break an address
    page.get_by_label("title").fill("The Fresh Lighthouse")
    page.get_by_label("description").fill("A funny tale of a reef and a tiger.")
    page.get_by_role("button", name="Add the item").click()
    expect(page.get_by_role("heading", name="The Fresh Lighthouse")).to_be_visible()

    page.get_by_label("For words, then Enter").fill("The Fresh Lighthouse. A funny tale of a reef and a tiger.")
    page.get_by_label("For words, then Enter").press("Enter")
    expect(page.locator(".rank")).to_contain_text("Place ")
    expect(page.locator(".ranked .marked")).to_contain_text("The Fresh Lighthouse")
    find = page.get_by_role("combobox", name="User id")
    find.fill("user1")
    find.press("Enter")
    expect(page.locator(".rank")).to_contain_text("for user user1")

    page.get_by_label("title").fill("The Old Lighthouse")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The Old Lighthouse")
    expect(page.get_by_text("it can be recommended now").last).to_be_visible()
    item = service.api.get("/v1/items/fresh%2F1").json()
    assert item["title"] == "The Old Lighthouse"
    assert item["fields"]["description"] == "A funny tale of a reef and a tiger."

    page.get_by_role("button", name="Delete").click()
    confirm(page, "Leave it")
    assert service.api.get("/v1/items/fresh%2F1").status_code == 200
    page.get_by_role("button", name="Delete").click()
    confirm(page, "Delete it")
    expect(page.get_by_role("heading", name="Catalog")).to_be_visible()
    assert service.api.get("/v1/items/fresh%2F1").status_code == 404
    visit.go("catalog/fresh%2F1")
    expect(page.get_by_role("alert")).to_contain_text("there is no item 'fresh/1'")


def test_the_catalog_is_searched_by_title_and_by_meaning(visit: Visit) -> None:
    page = visit.go("catalog")
    expect(page.locator("caption", has_text="32 items")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("whale")
    expect(page.locator("tbody tr").first).to_contain_text("Whale")
    page.get_by_label("How to search").select_option("meaning")
    expect(page.locator("caption")).to_contain_text("nearest in meaning")
    page.get_by_label("How to search").select_option("title")
    page.get_by_label("Search the catalog").fill("zzz")
    expect(page.get_by_text("No title has these words")).to_be_visible()


def test_texts_of_a_catalog_never_become_part_of_the_page(visit: Visit, service: Service) -> None:
    item = {"title": HOSTILE, "description": HOSTILE, "topic": HOSTILE}
    assert service.api.put("/v1/items/hostile", json=item).status_code == 200
    try:
        page = visit.go("catalog/hostile")
        expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
        visit.go("catalog?query=onerror")
        expect(page.locator("tbody a")).to_have_text(HOSTILE)
        visit.go("recommend?items=hostile")
        expect(page.locator(".chips li")).to_contain_text(HOSTILE)
        assert page.locator("main img, main script").count() == 0
        assert page.title() == "Recommend · lmrec"
    finally:
        service.api.delete("/v1/items/hostile")


# ---- rules and reviews


def test_a_rule_is_made_is_in_force_and_is_deleted(visit: Visit, service: Service) -> None:
    question = {"history": ["film0"], "k": 30}
    everything = [item["title"] for item in service.api.get("/v1/items").json()["items"]]
    listed = service.api.post("/v1/recommendations", json={**question, "k": 30}).json()["items"]
    hidden, *_, pinned = [item for item in listed if everything.count(item["title"]) == 1]

    def shown() -> list[str]:
        return [item["item_id"] for item in service.api.post("/v1/recommendations", json=question).json()["items"]]

    page = visit.go("rules")
    expect(page.get_by_text("No rules")).to_be_visible()
    page.get_by_role("button", name="Add the rule").click()  # it names no items
    expect(page.locator(".toast.failed")).to_contain_text("item_ids")
    page.get_by_role("combobox", name="Add an item").fill(hidden["title"])
    page.get_by_role("option", name=hidden["title"]).click()
    page.get_by_role("button", name="Add the rule").click()
    expect(panel(page, "In force")).to_contain_text(hidden["title"])
    expect(page.locator(".toast.failed")).to_have_count(0)  # it went well at the second try
    assert hidden["item_id"] not in shown()

    page.get_by_label("Kind").select_option("pin")
    page.get_by_role("combobox", name="Add an item").fill(pinned["title"])
    page.get_by_role("option", name=pinned["title"]).click()
    page.get_by_role("button", name="Add the rule").click()
    expect(panel(page, "In force")).to_contain_text(f"{pinned['title']} at place 1")
    assert shown()[0] == pinned["item_id"]
    visit.go("recommend?items=film0")
    expect(page.locator(".ranked > li").first).to_contain_text("pin-1")

    visit.go("rules")
    for rule_id in ("must-not-show-1", "pin-1"):
        page.get_by_role("button", name=f"Delete the rule {rule_id}").click()
        confirm(page, "Delete it")
        expect(page.get_by_role("button", name=f"Delete the rule {rule_id}")).to_have_count(0)
    assert [hidden["item_id"], pinned["item_id"]] == [
        one for one in shown() if one in (hidden["item_id"], pinned["item_id"])
    ]


def test_each_kind_of_rule_has_its_form(visit: Visit, service: Service) -> None:
    sea = {"filter": {"topic": {"contains": "sea"}}}
    kinds: dict[str, tuple[dict[str, str], dict[str, object]]] = {
        "boost": ({"Factor": "3", "For users of the segment": "children"}, {"factor": 3, "segment": "children", **sea}),
        "demote": ({"Factor": "4"}, {"factor": 4, **sea}),
        "age_rating": ({"At most": "16"}, {"field": "description", "max": 16}),
        "in_stock": ({"For users of the segment": "shop"}, {"field": "description", "segment": "shop"}),
        "block_words": ({"Words": "gore, very bad\nworse"}, {"words": ["gore", "very bad", "worse"]}),
    }
    page = visit.go("rules")
    for kind, (written, rule) in kinds.items():
        page.get_by_label("Kind").select_option(kind)
        if "filter" in rule:
            page.get_by_role("button", name="Add a condition").click()
            page.get_by_label("Column").select_option("topic")
            page.get_by_role("textbox", name="Value").fill("sea")
        for label, text in written.items():
            page.get_by_label(label, exact=True).fill(text)
        name = page.get_by_label("Name of the rule").input_value()
        page.get_by_role("button", name="Add the rule").click()
        expect(page.get_by_role("button", name=f"Delete the rule {name}")).to_be_visible()
        assert service.api.get(f"/v1/rules/{name}").json()["rule"] == {"kind": kind, **rule}
        assert service.api.delete(f"/v1/rules/{name}").status_code == 200


def test_an_item_is_held_back_and_decided_on(visit: Visit, service: Service) -> None:
    page = visit.go("catalog/film3")
    page.get_by_role("button", name="Hold for review").click()
    title = page.get_by_role("heading", level=1).inner_text()
    confirm(page, "Hold it", "the picture is not for children")
    expect(page.get_by_text("waits in the review queue")).to_be_visible()

    visit.go("reviews")
    expect(page.locator(".card")).to_contain_text("the picture is not for children")
    page.get_by_label(f"Note on {title}").fill("truly not")
    page.get_by_role("button", name=f"Reject {title}").click()
    expect(page.get_by_text("Nothing waits")).to_be_visible()
    page.get_by_role("radio", name="Rejected").check()
    expect(page.locator(".card")).to_contain_text("truly not")
    page.get_by_role("button", name=f"Approve {title}").click()
    expect(page.get_by_text("Nothing was rejected yet")).to_be_visible()
    expect(panel(page, "Who decided what")).to_contain_text("film3")
    assert [row["status"] for row in service.api.get("/v1/reviews?status=approved").json()["reviews"]] == ["approved"]


# ---- numbers


def test_traffic_has_numbers_and_charts_with_axes(visit: Visit, service: Service) -> None:
    for user in range(12):
        service.api.post("/v1/recommendations", json={"user_id": f"user{user}"})
    page = visit.go("traffic")
    requests = page.get_by_role("img", name="Requests a minute")
    expect(requests.locator(".axis")).to_have_text(["requests", "time of day"])
    expect(requests.locator("rect.s0").first).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Latency"))).to_contain_text("POST /recommendations")
    expect(page.get_by_role("img", name=re.compile("Cold share"))).to_contain_text("share")
    numbers = dict(zip(page.locator("dt").all_text_contents(), page.locator("dd").all_text_contents(), strict=True))
    assert numbers["Items"] == "32"
    assert int(numbers["Requests, last hour"]) >= 12
    assert re.fullmatch(r"[\d.]+ m?s", numbers["Recommendations, p95"])


def test_all_lists_lately_are_told_by_generation(chromium: Browser, run: Path) -> None:
    with serving(run) as own, visiting(chromium, own.address) as visit:
        page = visit.go("experiments")
        expect(page.get_by_text("No lists were shown in this time")).to_be_visible()
        expect(page.get_by_text("One generation so far")).to_be_visible()
        expect(page.get_by_text("To start:")).to_be_visible()
        for generation, n_clicked in (("0", 10), ("0001", 30)):
            for place in range(100):
                show_list(own, f"{generation}-{place}", generation, clicked=place < n_clicked)
        visit.go("experiments")
        expect(page.locator("tbody tr").nth(1)).to_contain_text("30.0")
        expect(page.get_by_role("img").locator(".axis")).to_have_text("share of lists")


def test_an_experiment_is_started_read_and_ended(chromium: Browser, run: Path) -> None:
    other = copy_generation(run, "a copy", {})
    with serving(run) as own, visiting(chromium, own.address) as visit:
        page = visit.go("experiments")
        page.get_by_label("Name").fill("autumn")
        page.get_by_label("Share of users").fill("40")
        page.get_by_role("button", name="Start it").click()
        expect(page.get_by_role("heading", name="Running: autumn")).to_be_visible()
        expect(page.get_by_text(f"40\u00a0% of the users are answered by generation {other}")).to_be_visible()
        experiment = Experiment.of_two("autumn", "0", other, 0.4)
        for arm in ("control", "challenger"):  # one list each, one after the other, and nothing came of them
            user = next(f"v{n}" for n in range(40) if assign(f"v{n}", experiment).name == arm)
            own.api.post("/v1/recommendations", json={"user_id": user, "k": 2})
        page.get_by_role("button", name="Read again").click()
        rates = page.get_by_role("region", name="Rates by arm")
        expect(rates.get_by_role("row")).to_have_count(3)
        expect(rates).to_contain_text("0.0\u00a0% to 79.3\u00a0%")
        expect(page.get_by_role("img", name=re.compile("by arm")).locator("circle")).to_have_count(2)
        assert "not served at the same time" not in page.locator("main").inner_text()
        control = next(n for n in range(40) if assign(f"u{n}", experiment).name == "control")
        for n in range(40):
            answer = own.api.post("/v1/recommendations", json={"user_id": f"u{n}", "k": 2}).json()
            if answer["arm"] == "challenger" or n == control:
                sent = {"user_id": f"u{n}", "item_id": answer["items"][0]["item_id"], "kind": "click"}
                own.api.post("/v1/events", json={**sent, "request_id": answer["request_id"]})
        page.get_by_role("button", name="Read again").click()
        expect(page.locator(".verdicts")).to_contain_text("the challenger does better")
        expect(page.get_by_label("What would mislead")).to_contain_text("are needed to find a gain")
        page.get_by_role("button", name="End and promote").click()
        confirm(page, "Promote", "more clicks")
        expect(page.locator("#served")).to_contain_text(f"generation {other}")
        ended = page.get_by_label("Experiments that ended, newest first")
        expect(ended).to_contain_text("more clicks")
        page.get_by_label("How", exact=True).select_option("shadow")
        page.get_by_label("Name").fill("winter")
        page.get_by_label("Share of users").fill("100")
        page.get_by_role("button", name="Start it").click()
        expect(page.get_by_role("heading", name="Running: winter")).to_be_visible()
        own.api.post("/v1/recommendations", json={"user_id": "u1", "k": 3})
        wait_for(lambda: own.api.get("/v1/experiments/winter").json()["shadow"]["compared"] == 1)
        page.get_by_role("button", name="Read again").click()
        expect(page.locator(".numbers")).to_contain_text("100.0\u00a0%")
        page.get_by_role("button", name="End it").click()
        confirm(page, "End it", "seen enough")
        expect(page.get_by_role("heading", name="Start an experiment")).to_be_visible()


def show_list(service: Service, request_id: str, generation: str, clicked: bool) -> None:
    now = time.time()
    service.state.store.add_shown(Shown(request_id, f"u{request_id}", generation, ("film1", "film2"), now, {}))
    if clicked:
        event = Event(f"e{request_id}", f"u{request_id}", "film2", "click", now, request_id=request_id)
        service.state.store.add_events([event])


def copy_generation(run: Path, why: str, metrics: dict[str, Any]) -> str:
    folder = new_generation_folder(run)
    for name in ("run.json", "recipe.toml"):
        shutil.copy(run / name, folder / name)
    for name in ("data", "checkpoint", "vectors"):
        shutil.copytree(run / name, folder / name)
    return finish_generation(folder, why, metrics).name


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def test_generations_say_why_they_are_served_and_can_be_rolled_back(chromium: Browser, run: Path) -> None:
    gain = {"metric": "ndcg@10", "serving": 0.2, "candidate": 0.23, "difference": 0.03, "low": -0.01, "high": 0.07}
    generation = copy_generation(run, "ndcg@10 is 0.23 against 0.20", gain)
    promote(run, generation, "better")
    with serving(run) as own, visiting(chromium, own.address) as visit:
        page = visit.go("generations")
        expect(page.locator(".card.serving")).to_contain_text("ndcg@10 is 0.23 against 0.20")
        chart = page.get_by_role("img", name=re.compile("Gain in ndcg@10"))
        expect(chart).to_contain_text("+0.030")
        expect(chart.locator(".axis")).to_have_text("difference in ndcg@10")
        page.get_by_role("button", name="Roll back").click()
        confirm(page, "Roll back", "clicks fell")
        expect(page.locator(".card.serving h2")).to_have_text("Generation 0")
        expect(page.locator("#served")).to_contain_text("generation 0")
        assert own.api.get("/v1/generations").json()["serving"] == "0"
        page.get_by_role("button", name="Roll back").click()
        confirm(page, "Roll back", "once more")
        expect(page.locator(".toast.failed")).to_contain_text("nothing to go back to")


# ---- users' data and keys


def test_all_of_a_user_can_be_taken_away_and_deleted(visit: Visit, service: Service) -> None:
    event = {"event_id": "console-1", "user_id": "user9", "item_id": "film5", "kind": "click"}
    assert service.api.post("/v1/events", json=event).status_code == 200
    page = visit.go("users")
    find = page.get_by_role("combobox", name="User id")
    find.fill("user9")
    find.press("Enter")
    expect(page.get_by_text("console-1")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as JSON").click()
    export = json.loads(Path(download.value.path()).read_text())
    assert export["events"][0]["event_id"] == "console-1"

    page.get_by_role("button", name="Delete all of it").click()
    confirm(page, "Delete for good", "user8")
    expect(page.get_by_role("dialog")).to_be_visible()  # not what was asked for
    confirm(page, "Delete for good", "user9")
    expect(page.get_by_text("This user's data was deleted")).to_be_visible()
    assert service.api.get("/v1/users/user9").json()["training_log"] == []


def test_a_key_is_asked_for_and_kept_in_the_tab(chromium: Browser, run: Path) -> None:
    with serving(run) as own, visiting(chromium, own.address) as visit:
        reader = own.state.store.add_key("reader", ["read"])
        admin = own.state.store.add_key("boss", ["admin"])
        own.state.keys.forget()
        page = visit.go("catalog")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("this needs a key, and none came")
        confirm(page, "Not now")
        expect(page.get_by_role("alert")).to_contain_text("this needs a key")
        page.get_by_role("button", name="Try again").click()
        dialog.get_by_label("Key").fill("lmrec_“wrong”")  # no header takes these: the page must not call that silence
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog.locator(":invalid").last).to_be_focused()
        dialog.get_by_label("Key").fill("lmrec_wrong")
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog).to_contain_text("unknown or revoked")
        dialog.get_by_label("Key").fill(reader)
        dialog.get_by_label("Key").press("Enter")
        expect(page.locator("caption", has_text="32 items")).to_be_visible()
        assert page.evaluate("[Object.values(sessionStorage), Object.values(localStorage)]") == [[reader], []]

        visit.go("recommend")
        expect(page.get_by_text("Write an id above")).to_be_visible()
        visit.go("recommend?user=user1")  # a reader may not see what is held of a user, but may ask for them
        expect(panel(page, "History")).to_contain_text("needs 'admin'")
        expect(page.locator(".ranked > li")).to_have_count(10)
        page.get_by_role("button", name="Key").click()
        dialog.get_by_label("Key").fill(admin)
        dialog.get_by_label("Key").press("Enter")
        expect(page.locator(".past > li").first).to_be_visible()


# ---- the frame


def test_views_are_reached_by_keys_and_by_links(visit: Visit) -> None:
    page = visit.go("recommend")
    for letter, name in {"c": "Catalog", "t": "Traffic", "l": "Rules", "q": "Review queue", "r": "Recommend"}.items():
        page.keyboard.press("g")
        page.keyboard.press(letter)
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        expect(page.locator("nav [aria-current=page]")).to_contain_text(name)
    page.keyboard.press("/")
    expect(page.get_by_role("combobox", name="User id")).to_be_focused()
    page.keyboard.type("g c")  # in a field, letters are letters
    assert page.get_by_role("combobox", name="User id").input_value() == "g c"
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Review queue")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("link", name="Traffic").click()
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Recommend")


def test_the_keyboard_alone_loses_its_place_nowhere(visit: Visit, service: Service) -> None:
    page = visit.go("rules")
    find = page.get_by_role("combobox", name="Add an item")
    find.focus()
    options = page.locator(".picker [role=option]")
    expect(options).to_have_count(12)  # enough to scroll: such a list would be a stop of its own
    find.press("Tab")
    expect(page.get_by_role("button", name="Add a condition")).to_be_focused()
    find.fill("Whale")
    expect(options.first).to_contain_text("Whale")
    find.press("Enter")
    expect(find).to_be_focused()
    add = page.get_by_role("button", name="Add the rule")
    add.press("Enter")
    remove = page.get_by_role("button", name="Delete the rule must-not-show-1")
    expect(remove).to_be_visible()
    expect(add).to_be_focused()
    remove.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Leave it")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(remove).to_have_count(0)
    assert service.api.get("/v1/rules").json()["rules"] == []


def test_the_theme_follows_the_browser_or_the_person(visit: Visit) -> None:
    page = visit.go("rules")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(paper)
    assert light != dark
    theme = page.locator("#theme")
    theme.click()
    assert page.evaluate(paper) == light
    theme.click()
    page.emulate_media(color_scheme="light")
    page.reload()
    assert page.evaluate(paper) == dark
    expect(theme).to_have_attribute("aria-label", "Theme: dark. Change to auto")


def test_everything_fits_a_phone_and_has_names(chromium: Browser, service: Service) -> None:
    unnamed = """[...document.querySelectorAll('input, select, textarea, button, a')].filter((one) => one.checkVisibility()
        && !one.getAttribute('aria-label') && !one.textContent.trim() && !(one.labels && one.labels.length))
        .map((one) => one.outerHTML)"""
    with visiting(chromium, service.address, width=390, height=844) as visit:
        for view in [*VIEWS, "recommend?user=user3", "catalog/film4", "catalog/", "users?user=user3", "nonsense/%zz"]:
            page = visit.go(view)
            expect(page.locator("[aria-busy]")).to_have_count(0)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
            assert page.evaluate(unnamed) == [], view


def test_large_scores_long_wishes_and_tables_have_room(chromium: Browser, run: Path) -> None:
    box = "(one) => { const { x, width, height } = one.getBoundingClientRect(); return [x, x + width, height]; }"
    with serving(run) as own, visiting(chromium, own.address, width=375, height=740) as visit:
        views = [
            {"event_id": f"v{n}", "user_id": f"u{n // 1000}", "item_id": "film1", "kind": "click"} for n in range(2_000)
        ]
        for start in range(0, len(views), 1_000):
            assert own.api.post("/v1/events", json={"events": views[start : start + 1_000]}).status_code == 200
        own.state.serving.count()
        page = visit.go("recommend")
        page.get_by_role("button", name="Show what a stranger gets").click()
        score = page.locator(".ranked .score").first
        expect(score).to_contain_text(re.compile(r"\d{4}"))
        number = page.evaluate(
            "() => { const r = document.createRange(); r.selectNodeContents("
            "document.querySelector('.ranked .score span')); return r.getBoundingClientRect().right }"
        )
        assert number <= score.locator(".score-bar").evaluate(box)[0]
        page.get_by_role("radio", name="In words").check()
        wish = page.get_by_label("What somebody says they want")
        wish.fill("something light for a rainy day, and by no means anything with horror or war in it")
        assert wish.evaluate("(one) => one.scrollHeight - one.clientHeight") <= 1
        visit.go("users?user=u0")
        name = page.locator("td .item-name").first
        expect(name).to_be_visible()
        left, right, _ = name.evaluate(box)
        assert right - left > 100


def test_when_the_service_is_gone_the_page_says_so(chromium: Browser, run: Path) -> None:
    with serving(run) as own, visiting(chromium, own.address) as visit:
        page = visit.go("catalog")
        expect(page.locator("caption", has_text="32 items")).to_be_visible()
        page.route("**/*", lambda route: route.abort())
        page.get_by_label("Search the catalog").fill("whale")
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        page.unroute("**/*")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("tbody tr").first).to_contain_text("Whale")
