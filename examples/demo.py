"""The demo: a whole Penstock in .penstock/demo, the example corpus through it, and questions. Leaves nothing running.

Run it with `make demo`. It is safe to interrupt and to repeat: what is indexed already is not done again.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule

from penstock.client import Penstock

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "examples" / "corpus"
DATA_DIR = ROOT / ".penstock" / "demo"
COLLECTION = "corpus"
START_S = 180.0
STOP_S = 90.0
SHOWN = 3
GOAL = 0.85

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main() -> int:
    """Run the demo and return the exit code: 0 when enough questions were answered."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    questions = [
        json.loads(line) for line in (CORPUS / "questions.jsonl").read_text("utf-8").splitlines() if line.strip()
    ]
    try:
        with _installation() as environment:
            _step("Ingest the example corpus")
            ingested = _penstock(environment, "ingest", str(CORPUS / "documents"), "--collection", COLLECTION)
            if ingested:
                return ingested
            _step("Search it")
            for question in questions[:: max(1, len(questions) // SHOWN)][:SHOWN]:
                console.print(f"[bold cyan]$[/] penstock search {json.dumps(question['question'])} -k 2\n", markup=True)
                _penstock(environment, "search", question["question"], "-k", "2", "--collection", COLLECTION)
            _step("Ask every question of examples/corpus/questions.jsonl")
            share = _share(questions)
            _next()
    except KeyboardInterrupt:
        console.print("\nInterrupted. Nothing is left running, and nothing is lost: `make demo` goes on from here.")
        return 130
    return 0 if share >= GOAL else 1


@contextmanager
def _installation() -> Iterator[dict[str, str]]:
    """Run `penstock up` with embedded defaults and yield the environment in which commands find it."""
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    # Settings of this user's own installations must not reach the demo.
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("PENSTOCK_")}
    environment["PENSTOCK_DATA_DIR"] = str(DATA_DIR)
    log = DATA_DIR / "up.log"
    _step("Start Penstock")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.api.cli", "up", "--port", "0", "--json"],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=DATA_DIR,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the rest in order
        )
        try:
            _until_ready(process, log)
            yield environment
        finally:
            _stop(process)


def _until_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    began = time.monotonic()
    with console.status("starting the queue, the catalog, the API and the workers"):
        while (ready := _logged(log, "ready")) is None:
            if process.poll() is not None or time.monotonic() - began > START_S:
                console.print(log.read_text("utf-8", errors="replace")[-4000:], markup=False)
                raise SystemExit(f"penstock up did not start; the whole log is in {log}")
            time.sleep(0.1)
    console.print(
        f"ready in {time.monotonic() - began:.1f} s at {ready['url']}: queue, catalog, API and workers, "
        f"all in [bold]{_shown(DATA_DIR)}[/]"
    )


def _logged(log: Path, event: str) -> dict[str, Any] | None:
    for line in log.read_text("utf-8", errors="replace").splitlines():
        if line.startswith("{") and line.endswith("}"):
            entry: dict[str, Any] = json.loads(line)
            if entry.get("event") == event:
                return entry
    return None


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        with console.status("stopping"):
            process.wait(STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.terminate()  # the second signal hurries
        process.wait(STOP_S)


def _penstock(environment: dict[str, str], *words: str) -> int:
    """Run a command as a user would, on this terminal, and return its exit code."""
    process = subprocess.Popen([sys.executable, "-m", "penstock.api.cli", *words], env=environment, cwd=DATA_DIR)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the command got it too, and says what to do next
            process.wait(10)
            raise


def _share(questions: list[dict[str, Any]]) -> float:
    """Return the share of the questions whose document is among the first three hits."""
    url = (DATA_DIR / "api.url").read_text("utf-8").strip()
    key = (DATA_DIR / "admin.key").read_text("utf-8").strip()
    answered = 0
    with Penstock(url, key) as client:
        for question in questions:
            hits = client.search(COLLECTION, question["question"], k=3).hits
            found = any(hit.document.source == f"documents/{question['document']}" for hit in hits)
            answered += found
            if not found:
                console.print(f"[yellow]missed[/] {question['question']} [dim]({question['document']})[/]")
    share = answered / len(questions)
    colour = "green" if share >= GOAL else "red"
    console.print(
        f"[bold {colour}]{share:.0%}[/] of {len(questions)} questions have their document among the first three hits "
        f"({answered} of {len(questions)}; the goal is {GOAL:.0%})"
    )
    return share


def _next() -> None:
    _step("What to try next")
    console.print(
        "  penstock up                     run an installation of your own; it prints the key once\n"
        "  penstock ingest ~/Documents     in another terminal: make your own files searchable\n"
        '  penstock search "your question" search them\n'
        "  penstock status --watch         see what it is doing\n"
        "  penstock --help                 everything else\n"
        f"\n`source {_shown(Path(sys.prefix))}/bin/activate` puts the command on PATH.\n"
        "Run `make demo` again and nothing is embedded twice. Remove .penstock/demo to start over.",
        markup=False,
        soft_wrap=True,
    )


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _step(title: str) -> None:
    console.print()
    console.print(Rule(f"[bold]{title}[/]", align="left"))


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
