"""Is a first-layer filter a Gabor function or a color blob? Fits both and names the better one.

The paper opens with the claim that networks trained on natural images end up with first-layer
features like Gabor filters and color blobs. Here it becomes a count.

    Gabor:  exp(-(u/su)^2/2 - (v/sv)^2/2) * (p[c] cos(2 pi f u) + q[c] sin(2 pi f u))
    blob:   exp(-(u/su)^2/2 - (v/sv)^2/2) * p[c] + q[c]

with (u, v) turned by an angle about a centre, and p, q free for each channel c. The two have
2c + 6 and 2c + 5 numbers. A Gabor function without a carrier would be a blob, so its bandwidth may
be two octaves at most (0.31 cycles within one standard deviation; simple cells of the visual cortex
have one to one and a half) and three quarters of a cycle must fit on the kernel; a blob may be at
most 2.5 times as long as wide. The lower Bayesian information criterion wins; neither wins if it
leaves half of the filter's energy unexplained.
"""

import dataclasses
import math

import numpy as np

#: The winner must explain this share of a filter's energy, corrected for its number of parameters.
EXPLAINED = 0.5
#: Filters weaker than this share of the median filter's norm learned nothing to fit.
DEAD = 0.05
#: Least frequency x standard deviation of a Gabor function: a bandwidth of two octaves,
#: sqrt(ln 2 / 2) / pi * (2^2 + 1) / (2^2 - 1).
LEAST_TURN = 0.31
#: Least number of cycles across the kernel, else its bright half alone would pass for a blob.
LEAST_CYCLES = 0.75
#: Raised when fits change, so that fits kept in a workdir are made again.
VERSION = 1
LABELS = ("gabor", "blob", "neither", "undecided", "dead")
LETTERS = {"gabor": "G", "blob": "B", "neither": "–", "undecided": "?", "dead": "0"}
IN_WORDS = {
    "gabor": "Gabor function",
    "blob": "color blob",
    "neither": "neither fits",
    "undecided": "too few weights to fit",
    "dead": "almost no weight",
}


@dataclasses.dataclass(frozen=True)
class Fit:
    """What one filter looks like.

    Attributes:
      label: one of `LABELS`.
      gabor: share of the filter's energy that the best Gabor function explains, corrected for its
        number of parameters; may be negative; None where not fitted.
      blob: the same for the best blob.
    """

    label: str
    gabor: float | None = None
    blob: float | None = None


def fit_all(kernel: np.ndarray) -> list[Fit]:
    """Fits every filter of a first layer.

    Args:
      kernel: float [height, width, channels, filters].

    Returns:
      One `Fit` per filter.

    Raises:
      ValueError: not four axes, or a value that is not finite.
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 4:
        raise ValueError(f"a kernel has axes height, width, channels, filters; got {kernel.shape}")
    if not np.isfinite(kernel).all():
        raise ValueError("the kernel holds values that are not finite")
    norms = np.sqrt((kernel**2).sum((0, 1, 2)))
    weakest = DEAD * float(np.median(norms))
    return [Fit("dead") if norm <= weakest else fit(kernel[..., i]) for i, norm in enumerate(norms)]


def fit(filter_: np.ndarray) -> Fit:
    """Fits one filter, float [height, width, channels] with some energy."""
    height, width, channels = filter_.shape
    data = (filter_ / np.sqrt((filter_**2).sum())).reshape(height * width, channels)
    parameters = {"gabor": 6 + 2 * channels, "blob": 5 + 2 * channels}
    if data.size < 2 * max(parameters.values()) + 1:
        return Fit("undecided")
    x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    grid = np.stack([x.ravel(), y.ravel()])
    size = max(height, width)
    half, ends = size / 2, (-size / 4, 0.01, size / 4)
    gabor_starts = [
        [0.01, 0.01, math.pi * a / 8, f, turn, size / 4]
        for a in range(8)
        for f in sorted({min(cycles / size, 0.45) for cycles in (1, 2, 3)})
        for turn in (0.35, 0.6)
    ]
    gabor_bounds = (
        [-half, -half, -math.inf, LEAST_CYCLES / size, LEAST_TURN, 0.5],
        [half, half, math.inf, 0.5, 1.5, float(size)],
    )
    blob_starts = [[x, y, 0.1, s, 1.2] for x in ends for y in ends for s in (size / 6, size / 3)]
    blob_bounds = [-half, -half, -math.inf, 0.5, 1.0], [half, half, math.inf, float(size), 2.5]
    rest = {
        "gabor": _descend(_gabor, gabor_starts, gabor_bounds, grid, data),
        "blob": _descend(_blob, blob_starts, blob_bounds, grid, data),
    }
    count = data.size
    criterion = {
        m: count * math.log(max(rest[m], 1e-12) / count) + parameters[m] * math.log(count)
        for m in rest
    }
    explained = {m: 1 - rest[m] * count / (count - parameters[m]) for m in rest}
    best = min(criterion, key=criterion.__getitem__)
    label = best if explained[best] >= EXPLAINED else "neither"
    return Fit(label, explained["gabor"], explained["blob"])


def _turned(grid: np.ndarray, x: float, y: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    dx, dy = grid[0] - x, grid[1] - y
    c, s = math.cos(angle), math.sin(angle)
    return c * dx + s * dy, c * dy - s * dx


def _gabor(p: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The two basis images [pixels, 2] of a Gabor with p = centre, angle, frequency, turn, sv.

    `turn` is frequency x su: cycles within one standard deviation along the carrier.
    """
    x, y, angle, frequency, turn, across = p
    u, v = _turned(grid, x, y, angle)
    envelope = np.exp(-0.5 * ((u * frequency / turn) ** 2 + (v / across) ** 2))
    phase = 2 * math.pi * frequency * u
    return np.stack([envelope * np.cos(phase), envelope * np.sin(phase)], 1)


def _blob(p: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The two basis images [pixels, 2] of a blob with p = centre, angle, su, sv / su."""
    x, y, angle, along, aspect = p
    u, v = _turned(grid, x, y, angle)
    envelope = np.exp(-0.5 * ((u / along) ** 2 + (v / (along * aspect)) ** 2))
    return np.stack([envelope, np.ones_like(envelope)], 1)


def _descend(model, starts, bounds, grid: np.ndarray, data: np.ndarray) -> float:
    """The least squared residual over the best two of many starts."""
    from scipy.optimize import least_squares  # a third of a second, and fits are kept

    def residual(p):
        basis = model(p, grid)
        # A tiny ridge keeps the 2 x 2 system solvable where the two images coincide.
        normal = basis.T @ basis + 1e-9 * np.eye(2)
        return (data - basis @ np.linalg.solve(normal, basis.T @ data)).ravel()

    ranked = sorted(starts, key=lambda p: float((residual(p) ** 2).sum()))
    best = math.inf
    for start in ranked[:2]:
        inside = np.clip(start, np.array(bounds[0]) + 1e-6, np.array(bounds[1]) - 1e-6)
        found = least_squares(residual, inside, bounds=bounds, max_nfev=60)
        best = min(best, 2 * float(found.cost))
    return best


def counts(fits: list[Fit]) -> dict[str, int]:
    """Returns the number of filters per label, in the order of `LABELS`."""
    return {label: sum(f.label == label for f in fits) for label in LABELS}
