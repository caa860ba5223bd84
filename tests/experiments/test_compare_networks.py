import subprocess
import sys

import pytest
from places import ROOT


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--networks=resnet20,resnet7", "--networks=resnet20,resnet7: resnet7 is not one of resnet20"),
        ("--torch_python=/none/python", "--torch_python=/none/python: the peer failed"),
        # An interpreter without torch.
        (f"--torch_python={sys.executable}", "No module named 'torch'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(flag, line):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.compare_networks", "--networks=resnet20", flag],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert line in done.stderr
