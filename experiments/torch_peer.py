"""Runs a script in another Python interpreter, which has PyTorch."""

import subprocess
from collections.abc import Sequence

from absl import flags

from yosinski_jax.base.errors import UserError

_TORCH_PYTHON = flags.DEFINE_string("torch_python", "python3", "Python interpreter with torch")


def run(script: str, arguments: Sequence[object]) -> None:
    """Runs a script with these arguments in `--torch_python`.

    Raises:
        UserError: the interpreter or the script failed.
    """
    command = [_TORCH_PYTHON.value, "-c", script, *map(str, arguments)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as e:
        cause = (getattr(e, "stderr", "") or str(e)).strip().splitlines()[-1]
        raise UserError(f"--torch_python={_TORCH_PYTHON.value}: the peer failed ({cause})") from e
