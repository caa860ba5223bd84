"""The figure of the bases' first-layer filters."""

import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from yosinski_jax.analysis import gabor
from yosinski_jax.analysis.results import Study
from yosinski_jax.analysis.tables import where
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import Damaged, read_sealed, sealed, write_json
from yosinski_jax.report.drawing import Drawing
from yosinski_jax.report.page import Item


def first_layers(study: Study, *, fit_new: bool = True) -> list[Item]:
    """The bases' first-layer filters, each labeled Gabor function or color blob.

    Left out where a filter has too few weights for a fit.
    Fits cost about a tenth of a second a filter, so they are kept beside the kernels.

    Args:
      study: with a folder that holds checkpoints/<split>-<seed>/<name>/first_layer.npz.
      fit_new: whether kernels not fitted before may be fitted now.
    """
    drawn: list[tuple[str, np.ndarray, list[gabor.Fit]]] = []
    for r in study.records if study.folder else ():
        path = study.folder / "checkpoints" / where(r)  # pyright: ignore[reportOptionalOperand]
        kernel = _kernel(path / "first_layer.npz") if r["treatment"] == "base" else None
        if kernel is not None:
            fits = _fits(path / "first_layer.fits.json", kernel, fit_new)
            drawn += [(where(r), kernel, fits)] if fits else []
    by_base = {name: gabor.counts(fits) for name, _, fits in drawn}
    totals = {k: sum(found[k] for found in by_base.values()) for k in gabor.LABELS}
    totals = {k: count for k, count in totals.items() if count}
    if not totals.keys() - {"undecided", "dead"}:
        return []
    shape, total = drawn[0][1].shape, sum(totals.values())
    told = ", ".join(f"{c} {gabor.IN_WORDS[k]}" for k, c in totals.items())
    letters = ", ".join(f"{gabor.LETTERS[k]} {gabor.IN_WORDS[k]}" for k in totals)
    more = f"The first 4 of {len(drawn)} bases are drawn. " if len(drawn) > 4 else ""
    few = (
        "Kernels this small hold little more than an edge, so these counts say less than at 11×11. "
    )
    return [
        Item(
            "filters",
            "First-layer filters of the bases.",
            f"{total} filters of {shape[0]}×{shape[1]} pixels: {told}. Letters: {letters}. {more}"
            f"{few if shape[0] < 5 else ''}",
            f"Filters of the first layer of {len(drawn)} bases; {told}.",
            Drawing("plots_training.filter_picture", {"kernels": drawn[:4]}),
            ["base", *(gabor.IN_WORDS[label] for label in gabor.LABELS)],
            [[name, *map(str, found.values())] for name, found in by_base.items()],
        )
    ]


def _kernel(path: Path) -> np.ndarray | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            kernel = stored["kernel"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return kernel if kernel.ndim == 4 and np.isfinite(kernel).all() else None


def _fits(path: Path, kernel: np.ndarray, fit_new: bool) -> list[gabor.Fit] | None:
    digest = hashlib.sha256(np.ascontiguousarray(kernel).tobytes()).hexdigest()
    try:
        kept = read_sealed(path)
        if (kept["kernel_sha256"], kept["version"]) == (digest, gabor.VERSION):
            return [gabor.Fit(**f) for f in kept["fits"]]
    except (OSError, Damaged, UserError, KeyError, TypeError):
        pass  # not fitted yet, damaged, or by a version with other fields
    if not fit_new:
        return None
    fits = gabor.fit_all(kernel)
    kept = {"kernel_sha256": digest, "version": gabor.VERSION}
    write_json(path, sealed(kept | {"fits": [dataclasses.asdict(f) for f in fits]}))
    return fits
