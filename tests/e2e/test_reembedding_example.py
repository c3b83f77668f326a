"""The example of a re-embedding runs as it is told to: a live collection goes from one model to another and back."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "reembed.py"


def test_the_example_of_a_reembedding_fails_no_search_and_loses_no_document(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for told in ("switched: minilm serves", "rolled back: static serves again", " 0 failed", "are searchable"):
        assert told in done.stdout, done.stdout
