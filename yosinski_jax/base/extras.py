"""Optional packages: imported where they are used, installed by an extra."""

import importlib
from typing import Any

from yosinski_jax.base.errors import UserError

#: Module → the extra of pyproject.toml that installs it. Other modules are core dependencies.
EXTRAS = {
    "array_record": "data",
    "grain": "data",
    "tensorflow_datasets": "data",
    "gcsfs": "gcs",
    "ray": "ray",
    "safetensors": "pretrained",
    "submitit": "slurm",
    "tensorboardX": "tensorboard",
    "wandb": "wandb",
}


def load(module: str, what: str) -> Any:
    """Imports an optional module.

    Args:
      module: its name, such as "tensorflow_datasets" or "grain.python".
      what: what needs it, in the user's terms: "dataset=cifar10", "streaming".

    Returns:
      The module.

    Raises:
      UserError: it cannot be imported; names the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise UserError(
            f"{what}: needs {module.split('.')[0]}, which cannot be imported ({e}); {install(module)}"
        ) from e


def install(module: str) -> str:
    """The command that installs a module."""
    return f'pip install "yosinski-jax[{EXTRAS[module.split(".")[0]]}]"'
