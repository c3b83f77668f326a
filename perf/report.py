"""What every script here has in common: flags, the conditions of a run, figures as a table or as one JSON object."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

errors = Console(stderr=True)


@dataclass(frozen=True)
class Figure:
    """One measured value. ``goal`` is the words of the promise, for example "at most 1.1"."""

    value: float
    unit: str
    goal: str | None = None


@dataclass
class Report:
    """The answer to one question."""

    name: str
    conditions: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)

    def to_json(self) -> str:
        figures = {name: asdict(figure) for name, figure in self.figures.items()}
        return json.dumps({"name": self.name, "conditions": self.conditions, "figures": figures}, indent=2)

    def table(self) -> Table:
        table = Table(title=self.name, title_justify="left")
        for column in ("figure", "value", "unit", "goal"):
            table.add_column(column, justify="right" if column == "value" else "left")
        for name, figure in self.figures.items():
            table.add_row(name, f"{figure.value:,.3f}".rstrip("0").rstrip("."), figure.unit, figure.goal or "")
        table.caption = ", ".join(f"{name} {value}" for name, value in self.conditions.items())
        return table


def parser(question: str) -> argparse.ArgumentParser:
    """Return the flags that every script has; ``question`` is what it answers."""
    flags = argparse.ArgumentParser(description=question, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    flags.add_argument("--quick", action="store_true", help="a reduced size that ends within a minute")
    return flags


def conditions(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a reader must know about the machine to compare figures."""
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """A progress bar on standard error; none when ``quiet``."""
    with Progress(console=errors, transient=True, disable=quiet) as bar:
        yield bar


def show(report: Report, *, as_json: bool) -> None:
    """Print the report as it was asked for."""
    if as_json:
        sys.stdout.write(report.to_json() + "\n")
    else:
        Console().print(report.table())
