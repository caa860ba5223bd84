"""Custom networks: from a module or file to a function of the number of classes."""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import error_line, first_line
from yosinski_jax.networks.network import Network

Layers = Sequence[str] | Mapping[str, Sequence[str]]

# Accepted names of a network's argument for the number of outputs.
_CLASSES = ("classes", "num_classes", "n_classes", "num_outputs")


def is_own(network: str) -> bool:
    """Whether a name refers to a custom network, "module:Name" or "file.py:Name"."""
    return ":" in network


def load(network: str) -> Any:
    """Loads "my_module:Net" or "path/to/file.py:Net": a class, a function or an instance.

    Raises:
      UserError: the file, module or name does not exist or cannot be imported.
    """
    where, _, name = network.rpartition(":")
    if not where or not name.isidentifier():
        raise UserError(
            f"network={network}: must be of the form my_module:Net or path/to/file.py:Net"
        )
    try:
        module = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    except FileNotFoundError as e:
        raise UserError(f"network={network}: there is no file {where}; check the path") from e
    except Exception as e:  # user code can raise anything while it is imported
        raise UserError(
            f"network={network}: {where} cannot be imported ({error_line(e)}); fix it first"
        ) from e
    if not callable(getattr(module, name, None)):
        own = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        raise UserError(
            f"network={network}: {where} has no {name}; it has {', '.join(own) or 'no class or function'}"
        )
    return getattr(module, name)


def _import_module(name: str) -> ModuleType:
    here = str(Path.cwd())  # not on the path of a console script
    if here not in sys.path:
        sys.path.append(here)
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(path)
    # Unique per file: two files called net.py are two modules.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # needed by pickle and dataclasses
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def builder(network: Any, options: Mapping[str, Any] | None = None) -> Callable[[int], Any]:
    """A function that makes a network for a number of classes.

    Args:
      network: a linen or NNX class, a function that returns a network, or an instance, which is used as
        it is. The number of classes is passed as the argument `classes`, `num_classes`, `n_classes` or
        `num_outputs`, or as a function's only argument without a default.
      options: other arguments of the class or function.

    Returns:
      A function from a number of classes to a network, or for NNX to a function of `rngs`.

    Raises:
      UserError: no argument takes the number of classes, or one is missing or unknown.
    """
    options = dict(options or {})
    what = getattr(network, "__name__", type(network).__name__)
    if _is_instance(network):
        if options:
            raise UserError(
                f"network_args={options}: {what} is an instance; pass its class to set them"
            )
        return lambda classes: network
    if not callable(network):
        raise UserError(
            f"network={network!r}: must be a module, its class or a function of classes"
        )
    parameters = {
        key: p
        for key, p in _signature(network).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and key not in ("self", "parent", "name", "rngs")
    }
    unknown = [key for key in options if key not in parameters]
    if unknown:
        raise UserError(
            f"network_args: {what} takes no {', '.join(unknown)}; it takes {', '.join(parameters) or 'nothing'}"
        )
    required = [key for key, p in parameters.items() if p.default is p.empty and key not in options]
    head = next((key for key in _CLASSES if key in parameters and key not in options), None)
    head = head or (required[0] if len(required) == 1 and not inspect.isclass(network) else None)
    missing = [key for key in required if key != head]
    if missing:
        raise UserError(
            f"{what} needs {', '.join(missing)}: give a value in network_args"
            + ("" if head else f", and call the number of outputs {_CLASSES[0]}")
        )
    if head is None:
        raise UserError(
            f"{what} has no argument for the number of outputs; call one of them {_CLASSES[0]}"
        )
    return lambda classes: _call(network, {head: classes, **options})


def _is_instance(network: Any) -> bool:
    # Not imported here: only users of NNX have loaded it.
    nnx = sys.modules.get("flax.nnx")
    return isinstance(network, (nn.Module, nnx.Module) if nnx else nn.Module)


def _signature(network: Callable[..., Any]) -> inspect.Signature:
    # NNX hides its classes' arguments from `inspect.signature`.
    return inspect.signature(network.__init__ if inspect.isclass(network) else network)


def _call(network: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    if "rngs" in _signature(network).parameters:
        return functools.partial(network, **arguments)  # NNX initializes in the constructor
    return network(**arguments)


class Own:
    """Builds a custom network for a number of classes; can be pickled if its arguments can.

    Args:
      network: a linen or NNX module or its class, a function that returns a network, or a reference to
        one: "my_module:Net", "path/to/file.py:Net".
      layers: see `Network.of`.
      options: other arguments of the class or function.

    Raises:
      UserError: it cannot be loaded, or called with a number of classes; see `load` and `builder`.
    """

    def __init__(
        self, network: Any, layers: Layers | None = None, options: Mapping[str, Any] | None = None
    ):
        self._given, self._layers, self._options = network, layers, dict(options or {})
        self._builder  # noqa: B018 (raises errors now)

    @functools.cached_property
    def _builder(self) -> Callable[[int], Any]:
        given = load(self._given) if isinstance(self._given, str) else self._given
        return builder(given, self._options)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_builder"}

    def __call__(self, classes: int) -> Network:
        """The network for a task with this many classes."""
        made = self._builder(classes)
        return made if isinstance(made, Network) else Network.of(made, self._layers)


def read_json(path: Path | str, argument: str) -> Any:
    """The content of a JSON file.

    Raises:
      UserError: it cannot be read; names `argument`.
    """
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{argument}={path}: cannot be read as JSON ({first_line(e)})") from e


def read_layers(path: Path | str) -> Layers:
    """The layers in a JSON file: a list of paths, or an object from a layer's name to its paths.

    Raises:
      UserError: it cannot be read, or holds something else.
    """
    found = read_json(path, "network_layers")
    names = list(found) if isinstance(found, (list, dict)) else []
    groups = list(found.values()) if isinstance(found, dict) else [names]
    texts = all(isinstance(g, list) and g and all(isinstance(x, str) for x in g) for g in groups)
    if not names or not texts:
        raise UserError(
            f'network_layers={path}: must hold a list such as ["conv1", "fc2"] or an object such as '
            '{"stem": ["conv1", "norm1"], "head": ["fc2"]}'
        )
    return found
