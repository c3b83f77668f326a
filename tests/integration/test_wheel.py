"""What is installed from a wheel, as the image and every user of `pip install` have it: all that the checkout has."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("api", "client", "pipeline", "settings", "storage", "workers")


def test_a_wheel_holds_every_file_of_the_packages(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / "source" / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]

    subprocess.run([*build, "--wheel-dir", tmp_path, tmp_path / "source"], check=True, capture_output=True)

    [wheel] = tmp_path.glob("*.whl")
    packed = {name.removeprefix("penstock/") for name in zipfile.ZipFile(wheel).namelist()}
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    there = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert there - packed == set()
