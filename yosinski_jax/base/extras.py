"""Packages that only part of the work needs: imported where they are used, from an extra that brings them."""

import importlib
from typing import Any

from yosinski_jax.base.errors import UserError

#: Module → the extra of pyproject.toml that brings it. What is not here is a dependency of the core.
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
    """Imports a module that an extra brings.

    Args:
      module: its name, such as "tensorflow_datasets" or "grain.python".
      what: what needs it, as the user asked for it: "dataset=cifar10", "streaming".

    Returns:
      The module.

    Raises:
      UserError: it cannot be imported; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise UserError(
            f"{what}: needs {module.split('.')[0]}, which cannot be imported ({e}); {install(module)}"
        ) from e


def install(module: str) -> str:
    """The command that installs what a module needs."""
    return f'pip install "yosinski-jax[{EXTRAS[module.split(".")[0]]}]"'
