"""The main job, end to end on MovieLens-100K, told as the commands that a user would type."""

import json
import os
import signal
import subprocess
import sys
import time
import webbrowser
from pathlib import Path

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
    if not os.environ.get("HEADLESS") and sys.stdout.isatty():
        webbrowser.open(report.resolve().as_uri())


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
