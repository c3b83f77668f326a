"""Say what is missing before anything is installed. Runs on the system's Python, with its standard library alone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

COMPILER_ADVICE = """hnswlib has no binary packages and must be compiled, but {problem}.
  Debian, Ubuntu:  sudo apt-get install g++ make python3-dev python3-venv
  Fedora, RHEL:    sudo dnf install gcc-c++ make python3-devel
  macOS:           xcode-select --install
Then run the same command again."""


def python_problem() -> "str | None":
    if sys.version_info < (3, 11):
        found = ".".join(str(part) for part in sys.version_info[:3])
        return f"Penstock needs Python 3.11 or newer, this is {found}. Point make at one: make demo PYTHON=python3.12"
    try:
        import ensurepip  # noqa: F401  # Debian ships it apart from Python
        import venv  # noqa: F401
    except ImportError:
        return "Python's venv module is missing. Debian, Ubuntu: sudo apt-get install python3-venv"
    return None


def compiler_problem() -> "str | None":
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        return COMPILER_ADVICE.format(problem="no C++ compiler was found")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text(
            "#include <Python.h>\n#include <vector>\nint probe() { return (int)std::vector<int>(1).size(); }\n"
        )
        include = sysconfig.get_paths()["include"]
        command = [*compiler.split(), "-c", f"-I{include}", str(source), "-o", str(source.with_suffix(".o"))]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        problem = "Python's header files are missing" if "Python.h" in result.stderr else f"{compiler} does not work"
        return COMPILER_ADVICE.format(problem=problem)
    return None


def main() -> int:
    problem = python_problem() or compiler_problem()
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
