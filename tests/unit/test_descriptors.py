"""Open files: a process takes what the system grants, and leaves half of them for all else."""

import subprocess
import sys

import pytest

from penstock.storage.objects.descriptors import files_for_snapshots

PROGRAM = """
import resource
from penstock.storage.objects.descriptors import raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
print(raise_open_files(most={most}), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("most", "allowed"), [(65_536, 1_024), (512, 512), (100, 256)])
def test_a_process_asks_for_as_many_files_as_it_may_have_and_never_for_fewer(most, allowed):
    program = PROGRAM.format(most=most)
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert told.stdout.split() == [str(allowed), str(allowed), "1024"]


def test_half_of_the_files_are_left_for_all_else_with_two_descriptors_each():
    assert files_for_snapshots(1_024) == 256
    assert files_for_snapshots(1) == 1
