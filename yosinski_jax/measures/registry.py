"""The list of measures: every module of this folder that registers one."""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from yosinski_jax.base.errors import UserError

if TYPE_CHECKING:
    from yosinski_jax.measures.subject import Subject

#: One number, or several by suffix: {"": 0.9, "other": 0.4} of `probe` are `probe` and `probe_other`.
Values = float | Mapping[str, float]

#: Which layers a measure applies to: those after which the network can be cut (1 … depth − 1), every
#: layer, or every layer and the network as a whole (a subject with `k` = 0).
INNER, EACH, EACH_AND_WHOLE = "inner", "each", "each and whole"


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measure as it is applied to a sweep.

    Attributes:
      name: its name in `--measures`.
      compute: maps one layer of one base to its value or values.
      suffixes: suffixes of the names of its values; "" is the name itself.
      layers: `INNER`, `EACH` or `EACH_AND_WHOLE`.
      trains: whether it trains networks of its own.
      needs: treatments whose records it reads, such as "AnB+".
      copies: whether it reads the parameters of those networks as well, which a sweep does not keep by default.
      about: the first line of its definition.
    """

    name: str
    compute: Callable[["Subject"], Values]
    suffixes: tuple[str, ...] = ("",)
    layers: str = INNER
    trains: bool = False
    needs: tuple[str, ...] = ()
    copies: bool = False
    about: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What its values are called: `probe`, `probe_other`."""
        return tuple("_".join(filter(None, (self.name, suffix))) for suffix in self.suffixes)


_FOUND: dict[str, Measure] = {}


def measure(name: str, **options) -> Callable:
    """Registers the decorated function, which takes a `Subject`, as the measure `name`; options are `Measure`'s.

    Raises:
      ValueError: another file has a measure of that name.
    """

    def register(compute: Callable[["Subject"], Values]) -> Callable[["Subject"], Values]:
        before = _FOUND.get(name)
        if before is not None and before.compute.__module__ != compute.__module__:
            raise ValueError(
                f"two measures are called {name}: {before.compute.__module__}, {compute.__module__}"
            )
        definition = importlib.import_module(compute.__module__).__doc__ or ""
        about = definition.strip().partition("\n")[0]
        _FOUND[name] = Measure(name, compute, about=about, **options)
        return compute

    return register


@functools.cache
def _import_all() -> None:
    import yosinski_jax.measures as folder

    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")


def measures() -> dict[str, Measure]:
    """All measures by name, those that train last."""
    _import_all()
    return dict(sorted(_FOUND.items(), key=lambda item: (item[1].trains, item[0])))


def choose(names: Sequence[str]) -> list[Measure]:
    """The measures with these names, or with values of these names, in the order in which they are computed.

    Raises:
      UserError: a name is unknown; lists the unknown and the known ones.
    """
    known = measures()
    wanted = {m.name for m in known.values() if {m.name, *m.names} & set(names)}
    unknown = sorted(set(names) - {name for m in known.values() for name in (m.name, *m.names)})
    if unknown or not names:
        raise UserError(
            f"measures={','.join(names)}: {', '.join(unknown) or 'nothing'} is not a measure; choose from {','.join(known)}"
        )
    return [m for m in known.values() if m.name in wanted]
