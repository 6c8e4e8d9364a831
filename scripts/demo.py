"""The main job, end to end on MovieLens-100K, told as the commands that a user would type."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path(os.environ.get("LMREC_DEMO_RUNS", ROOT / "runs"))
TABLES, RUN = RUNS / "movielens-100k-tables", RUNS / "demo"
LMREC = Path(sys.executable).with_name("lmrec")

EPOCHS = 8  # the recipe says 10: a demo should end within minutes, at the price of the last few percent
KNOWN_USER = "42"
STRANGER = "50,172,181,222,228"  # Star Wars, Empire, Jedi, Star Trek: First Contact, The Wrath of Khan
NEW_FILM = (
    "The Last Garden of Mars. A robot gardener and a runaway girl cross the red desert. Animation, Sci-Fi, Adventure"
)


def main() -> None:
    # Ctrl-C reaches the command too, which saves its work; this script has to wait for that, not to die first.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    started = time.monotonic()
    if not (TABLES / "interactions.csv").exists():
        lmrec("data", "fetch", "movielens-100k", "--out", TABLES)
    if is_judged():
        print(f"\n{RUN} is trained and judged already; remove it to see the whole arc again.")
    else:
        resume = ["--resume"] if (RUN / "run.json").exists() and status() != "trained" else []
        if status() == "trained":
            lmrec("evaluate", RUN)
        else:
            lmrec(
                *("fit", "--items", TABLES / "items.csv", "--interactions", TABLES / "interactions.csv"),
                *("--users", TABLES / "users.csv", "--recipe", ROOT / "recipes" / "movielens-100k.toml"),
                *("--out", RUN, "--set", f"training.frozen_epochs={EPOCHS}", *resume),
            )
    headline("Ten films for a user that the model knows")
    lmrec("recommend", RUN, "--user", KNOWN_USER)
    headline("Ten films for somebody never seen, who liked five")
    lmrec("recommend", RUN, "--history", STRANGER)
    headline("Who would want this? A film that exists only as the words on this line")
    lmrec("audience", RUN, "--text", NEW_FILM)
    headline("And what else is for people who want that film")
    lmrec("recommend", RUN, "--text", NEW_FILM)
    report = RUN / "report.html"
    print(f"\nThe report: {report}   ({time.monotonic() - started:.0f} s in all)")
    serve()


def serve() -> None:
    """The run as a live service: somebody watches films, a film is posted, both count at once; then the console."""
    stay = not os.environ.get("HEADLESS") and sys.stdout.isatty()
    address = f"http://127.0.0.1:{free_port(8000 if stay else 0)}"
    print(f"\n$ lmrec serve {os.path.relpath(RUN)} --port {address.rpartition(':')[2]}", flush=True)
    log = (RUNS / "demo-service.log").open("w")
    service = subprocess.Popen(
        [LMREC, "serve", RUN, "--port", address.rpartition(":")[2]], stdout=log, stderr=subprocess.STDOUT
    )
    try:
        wait_until_ready(address, service)
        prove(address)
        print(f"\nThe console: {address}   (API: {address}/openapi.json)", flush=True)
        if stay:
            webbrowser.open(address)
            print("Ctrl-C stops the service.", flush=True)
            service.wait()
    finally:
        if service.poll() is None:
            service.terminate()
        code = service.wait(timeout=30)
        log.close()
    if code and not stay:
        sys.exit(f"the service ended with code {code}: see {RUNS / 'demo-service.log'}")


def prove(address: str) -> None:
    headline("Live: a user of whom nothing is known watches two films")
    newcomer = "demo-newcomer"
    show(call(f"{address}/v1/recommendations", {"user_id": newcomer, "k": 5}))
    for film in ("50", "181"):
        call(f"{address}/v1/events", {"events": [{"user_id": newcomer, "item_id": film, "kind": "play"}]})
    show(call(f"{address}/v1/recommendations", {"user_id": newcomer, "k": 5}))
    headline("Live: a film is posted and stands in the catalog at once")
    started = time.monotonic()
    call(f"{address}/v1/items/demo-mars", {"title": NEW_FILM.partition(".")[0], "genres": "Animation, Sci-Fi"}, "PUT")
    print(f"posted in {time.monotonic() - started:.1f} s (the first words load the language model); nearest to it:")
    show(call(f"{address}/v1/similar", {"item_id": "demo-mars", "k": 5}))
    call(f"{address}/v1/items/demo-mars", None, "DELETE")
    call(f"{address}/v1/users/{newcomer}", None, "DELETE")


def call(url: str, body: Any, method: str = "POST") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310 (our own)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {url} answers {error.code}: {error.read().decode()}")


def show(answer: Any) -> None:
    print(
        f"  from {answer.get('basis', 'the item')}: " + "; ".join(item["title"] for item in answer["items"]), flush=True
    )


def wait_until_ready(address: str, service: "subprocess.Popen[bytes]") -> None:
    for _ in range(240):
        if service.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):  # noqa: S310
                return
        except OSError:
            time.sleep(0.25)
    sys.exit(f"the service did not get ready: see {RUNS / 'demo-service.log'}")


def free_port(wanted: int) -> int:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lmrec(*arguments: object) -> None:
    """Show a command, then run it; a failure or Ctrl-C ends the demo with the command's own message and code."""
    words = [str(argument) for argument in arguments]
    shown = [f"'{word}'" if " " in word else os.path.relpath(word) if word.startswith("/") else word for word in words]
    print(f"\n$ lmrec {' '.join(shown)}", flush=True)
    code = subprocess.run([LMREC, *words], check=False).returncode
    if code:
        if code == 130:
            print("Interrupted. `make demo` goes on where it stopped.", file=sys.stderr)
        sys.exit(code)


def headline(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def status() -> str:
    file = RUN / "run.json"
    return str(json.loads(file.read_text(encoding="utf-8")).get("status", "")) if file.exists() else ""


def is_judged() -> bool:
    return status() == "trained" and (RUN / "report.html").exists()


if __name__ == "__main__":
    main()
