"""The identity of a workdir: everything its results depend on. A request that differs is refused, with the differences."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import Damaged, as_path, read_sealed, sealed, write_json
from yosinski_jax.data.dataset import Dataset
from yosinski_jax.networks.network import Like, Network
from yosinski_jax.study import records
from yosinski_jax.study.settings import GRID, Settings


def describe(
    settings: Settings,
    dataset: Dataset,
    networks: Mapping[int, Network],
    like: Like,
    fed_shape: Sequence[int],
) -> dict[str, Any]:
    """Everything that a sweep's results depend on, as JSON.

    Args:
      settings: the request.
      dataset: the data.
      networks: by number of classes.
      like: shape and dtype of one network input.
      fed_shape: shape of one image as fed.
    """
    labels = [dataset.train.labels, dataset.test.labels]
    data = {
        "train_images": len(dataset.train), "test_images": len(dataset.test),
        "label_names": _digest(json.dumps(dataset.label_names).encode()),
        "labels": _digest(*(x.tobytes() for x in labels)),
        "images": _digest(dataset.train.fingerprint.encode(), dataset.test.fingerprint.encode()),
        "image_shape": list(fed_shape),
    }  # fmt: skip
    return settings.as_json() | {
        "schema": records.SCHEMA,
        "data": data,
        "networks": {str(n): network.identity(like) for n, network in networks.items()},
    }


def digest(described: Mapping[str, Any]) -> str:
    """Twelve hex digits of a digest of all but the grid, which may grow."""
    fixed = {name: value for name, value in described.items() if name not in GRID}
    return sealed(fixed)["digest"][:12]


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def check(
    workdir: Path,
    described: Mapping[str, Any],
    command: str = "",
    *,
    extend: bool = False,
    write: bool = True,
    note: Callable[[str], None] = print,
) -> None:
    """Compares a request with the one that the workdir was begun with; writes it if the workdir is new.

    Args:
      workdir: the folder.
      described: the result of `describe`.
      command: the command line, stored for reference.
      extend: whether the grid may be larger than before.
      write: whether to write the file if it is new or the grid has grown.
      note: called with a message if the file is damaged.

    Raises:
      UserError: they differ; lists the differences.
    """
    path = as_path(workdir) / "settings.json"
    now = sealed({**described, "command": command})
    try:
        before = read_sealed(path)
    except FileNotFoundError:
        before = None
    except Damaged as e:  # harmless: each record carries the digest of its own settings
        note(f"{e}; rewritten" if write else str(e))
        before = None
    if before is None:
        if write:
            write_json(path, now)
        return
    differences, grown = [], False
    for name, old, new in _differences(before, now):
        larger = name in GRID and _contains(new, old)
        if larger and extend:
            grown = True
        else:
            differences.append((_in_words(name, old, new), larger))
    if differences:
        larger = any(larger for _, larger in differences)
        hint = "pass extend=True to add the new networks to it, " if larger else ""
        words = "; ".join(dict.fromkeys(words for words, _ in differences))
        raise UserError(
            f"workdir={workdir}: was begun with other settings ({words}); use the same settings, "
            f"{hint}or choose another workdir"
        )
    if grown and write:
        write_json(path, now)


def _differences(old: Mapping, new: Mapping, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        if name in ("command", "digest"):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}", a, b


def _contains(new: Any, old: Any) -> bool:
    return isinstance(new, list) and isinstance(old, list) and all(item in new for item in old)


_WORDS = {
    "schema": "it was made by another version of this package",
    "data.images": "the images differ from this workdir's",
    "data.labels": "the labels differ from this workdir's",
    "pretrained": "the pretrained weights differ from this workdir's",
    "data.label_names": "the names of the classes differ from this workdir's",
}


def _in_words(name: str, old: Any, new: Any) -> str:
    if name in _WORDS:
        return _WORDS[name]
    if name.startswith("networks."):
        what = name.split(".", 2)[2] if name.count(".") > 1 else ""
        if what == "layers" and old and new and sorted(old) == sorted(new):
            return f"the layers are in another order ({_layers(old)}; now {_layers(new)})"
        if what == "layers":
            return f"the layers were {_layers(old)}, are now {_layers(new)}"
        if what == "module":
            lines = zip(str(old).splitlines(), str(new).splitlines(), strict=False)
            a, b = next(((a, b) for a, b in lines if a != b), (old, new))
            return f"the network was {_short(str(a).strip())}, is now {_short(str(b).strip())}"
        if what.startswith("tree."):
            return f"{what.removeprefix('tree.')} was {old or 'missing'}, is now {new or 'missing'}"
    return f"{name} was {_short(old)}, is now {_short(new)}"


def _layers(layers: Any) -> str:
    return ", ".join(str(layer[0]) for layer in layers or ())


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
