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
    if study.folder is None:
        return []
    drawn: list[tuple[str, np.ndarray, list[gabor.Fit]]] = []
    totals: dict[str, int] = {}
    for r in study.records:
        path = study.folder / "checkpoints" / f"{r['split']}-{r['split_seed']}" / r["name"]
        kernel = _kernel(path / "first_layer.npz") if r["treatment"] == "base" else None
        if kernel is None:
            continue
        fits = _fits(path / "first_layer.fits.json", kernel, fit_new)
        if fits is None:
            continue
        for label, count in gabor.counts(fits).items():
            totals[label] = totals.get(label, 0) + count
        drawn.append((where(r), kernel, fits))
    if not set(totals) - {"undecided", "dead"}:
        return []
    shown = drawn[:4]
    rows = [
        [name, *(str(gabor.counts(fits).get(label, 0)) for label in gabor.LABELS)]
        for name, _, fits in drawn
    ]
    total = sum(totals.values())
    told = ", ".join(f"{c} {gabor.IN_WORDS[label]}" for label, c in totals.items())
    size = f"{shown[0][1].shape[0]}×{shown[0][1].shape[1]}"
    letters = ", ".join(f"{gabor.LETTERS[k]} {gabor.IN_WORDS[k]}" for k in totals)
    more = f"The first {len(shown)} of {len(drawn)} bases are drawn. " if len(drawn) > 4 else ""
    few = "So few pixels hold little more than an edge: these counts say less than at 11×11. "
    return [
        Item(
            "filters",
            "First-layer filters of the bases.",
            f"{total} filters of {size} pixels: {told}. Letters: {letters}. {more}"
            f"{few if shown[0][1].shape[0] < 5 else ''}",
            f"Filters of the first layer of {len(drawn)} bases; {told}.",
            Drawing("plots_training.filter_picture", {"kernels": shown}),
            ["base", *(gabor.IN_WORDS[label] for label in gabor.LABELS)],
            rows,
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
