"""Names for functions of the user's, which settings and records hold in their place."""

import hashlib
import types
from collections.abc import Callable
from typing import Any

from yosinski_jax.base.errors import UserError


def identity_of(own: Callable[..., Any], field: str) -> str:
    """A name for a user's function, which changes when its code does.

    Args:
      own: the function.
      field: what it is given as: "optimizer", "loss" or "metric".

    Raises:
      UserError: it holds values that cannot be compared between two processes, as an optax
        transformation does.
    """
    code, cells = getattr(own, "__code__", None), getattr(own, "__closure__", None) or ()
    bound = [*(cell.cell_contents for cell in cells), *(getattr(own, "__defaults__", None) or ())]
    if code is None or not all(isinstance(x, bool | int | float | str | None) for x in bound):
        raise UserError(
            f"{field}: holds values that cannot be compared between two runs; give {field}_id as well, a name that you "
            "change whenever it changes, or a plain function without bound values"
        )
    parts = [_code_text(code), repr(bound)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    return f"{own.__module__}.{own.__qualname__}-{digest}"


def _code_text(code: types.CodeType) -> str:
    inner = [_code_text(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return "\n".join([code.co_code.hex(), *code.co_names, *inner])
