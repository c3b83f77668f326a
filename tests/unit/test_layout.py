"""The folders, the packaging and the links for type checkers must tell the same story."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = {
    name.removeprefix("penstock."): folder for name, folder in CONFIG["tool"]["setuptools"]["package-dir"].items()
}


def packages_on_disk() -> set[str]:
    found = set()
    for folder in MAPPED.values():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add("penstock." + ".".join(init.parent.relative_to(ROOT).parts))
    return found


def absolute_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def test_every_mapped_folder_has_a_link_for_type_checkers():
    links = {path.name: path.resolve() for path in (ROOT / ".import-root/penstock").iterdir()}

    assert links == {name: ROOT / folder for name, folder in MAPPED.items()}


def test_packages_on_disk_are_the_packages_that_get_installed():
    assert packages_on_disk() == set(CONFIG["tool"]["setuptools"]["packages"])


def test_every_top_level_package_is_under_the_import_contracts():
    assert set(CONFIG["tool"]["importlinter"]["root_packages"]) == {f"penstock.{name}" for name in MAPPED}


@pytest.mark.parametrize("folder", sorted(MAPPED.values()))
def test_a_folder_imports_itself_relatively(folder):
    offenders = {
        str(path.relative_to(ROOT)): name
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "env.py" and path.parent.name != "revisions"  # Alembic runs these as scripts, without a package
        for name in absolute_imports(path)
        if name == f"penstock.{folder}" or name.startswith(f"penstock.{folder}.")
    }

    assert offenders == {}


def test_every_performance_script_can_be_started():
    """Nobody else imports them, so nothing else would notice that what they use was moved."""
    folder = ROOT / "perf"
    scripts = sorted(path.stem for path in folder.glob("*.py") if path.stem != "llamaindex")  # which needs the peers
    started = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(scripts)}"], cwd=folder, check=False, capture_output=True, text=True
    )
    assert started.returncode == 0, started.stderr
