"""The paper's treatments, the names of its networks, and the grid of a sweep.

A network of the study is defined by four values: its treatment, the number n of layers that it
copies, the half of the classes it is trained on (target), and, where layers are copied, the half that
the copied base was trained on (source). The paper writes them as "baseA", "B3B", "B3B+", "A3B",
"A3B+": the first three layers from A, trained on B, "+" for fine-tuned. Random features, which the
paper leaves unnamed, are "R3B" here, layers of pretrained
weights "P3B" and "P3B+". Networks on all classes are "baseAll", on a reduced data set
"baseAll-0250" (250 images of each class), with random features "R3all". The same suffix marks networks
on a small target: "A3B-0025" copies three layers of the base that was trained on all images of A and is
itself trained on 25 images of each class of B; "baseB-0025" is trained on the same few from scratch.
"""

import dataclasses
import re
from collections.abc import Sequence

from yosinski_jax.base.errors import UserError

#: Treatments in the paper's order. Written for target B; with target A, "BnB" is the selffer "AnA", "AnB" is "BnA".
TREATMENTS = ("base", "BnB", "BnB+", "AnB", "AnB+", "RnB")
#: Like BnB and AnB, but the first n layers come from weights trained by another program.
PRETRAINED = ("PnB", "PnB+")
#: All treatments, in the order of tables.
KNOWN = (*TREATMENTS, *PRETRAINED)
HALVES = ("A", "B")
#: The target of a network that is trained on all classes; only a base or random features can be.
ALL = "all"

_NAME = re.compile(
    r"(?:base(?P<base>[AB])"
    r"|(?P<source>[ABPR])(?P<n>\d+)(?P<target>[AB])(?:p(?P<p>[12]))?(?P<plus>\+?)"
    r"|baseAll|R(?P<n_all>\d+)all)(?:-(?P<images>\d{4,}))?"
)


def other(half: str) -> str:
    """The half that is not `half`: "A" for "B" and "B" for "A"."""
    return "B" if half == "A" else "A"


@dataclasses.dataclass(frozen=True)
class Run:
    """One network of the study on one pair of tasks.

    Attributes:
      treatment: one of `KNOWN`.
      target: the half whose classes it is trained and tested on, "A" or "B"; "all" for all classes.
      n: number of layers copied (random features: left at their initial values); 0 for a base.
      preserve: number p of layers after the frozen ones that are copied as well and fine-tuned (the
        public code's "preserved" layers, 1 or 2); 0 for the paper's treatments. Only with BnB and
        AnB.
      images: training images of each class, where a network is given fewer than the others: on a
        reduced data set, or on a small target, whose copied layers come from a base on all images
        of its half; None otherwise.
    """

    treatment: str
    target: str
    n: int = 0
    preserve: int = 0
    images: int | None = None

    def __post_init__(self):
        if self.treatment not in KNOWN:
            raise ValueError(f"treatment {self.treatment!r} is not one of {', '.join(KNOWN)}")
        if self.target not in (*HALVES, ALL):
            raise ValueError(f"target {self.target!r} is not A, B or all")
        if self.target == ALL and self.treatment not in ("base", "RnB"):
            raise ValueError(f"treatment {self.treatment} needs a half as target, not all classes")
        if self.images is not None and self.images < 1:
            raise ValueError(f"images = {self.images!r}: must be at least 1")
        if (self.n == 0) != (self.treatment == "base") or self.n < 0:
            raise ValueError(f"n = {self.n} does not go with treatment {self.treatment}")
        if self.preserve and self.treatment not in ("BnB", "AnB"):
            raise ValueError(f"preserved layers go with BnB and AnB, not with {self.treatment}")

    @property
    def source(self) -> str | None:
        """The half whose base the first layers come from; None if they do not come from a base."""
        if self.treatment in ("base", "RnB") or self.pretrained:
            return None
        return self.target if self.treatment.startswith("B") else other(self.target)

    @property
    def copied(self) -> int:
        """Number of layers copied from the source's base or from pretrained weights."""
        return self.n + self.preserve if self.source or self.pretrained else 0

    @property
    def pretrained(self) -> bool:
        """Whether the first layers come from weights trained by another program."""
        return self.treatment in PRETRAINED

    @property
    def frozen(self) -> int:
        """Number k of frozen layers; the only property that the compiled program depends on."""
        return self.n if self.treatment in ("BnB", "AnB", "RnB", "PnB") else 0

    @property
    def name(self) -> str:
        """The paper's name, such as "baseB", "A3B", "A3B+"; "A3Bp1" with one preserved layer."""
        if self.target == ALL:
            name = f"R{self.n}all" if self.n else "baseAll"
        elif self.treatment == "base":
            name = f"base{self.target}"
        else:
            preserved = f"p{self.preserve}" if self.preserve else ""
            plus = "+" if self.treatment.endswith("+") else ""
            source = self.source or ("P" if self.pretrained else "R")
            name = f"{source}{self.n}{self.target}{preserved}{plus}"
        return name if self.images is None else f"{name}-{self.images:04d}"

    @property
    def waits_for(self) -> str | None:
        """Name of the base that must be trained first, or None."""
        return None if self.source is None else f"base{self.source}"


def parse(name: str) -> Run:
    """The network with a paper name: `parse("A3B+")`. Inverse of `Run.name`.

    Raises:
      UserError: `name` is not of that form.
    """
    m = _NAME.fullmatch(name)
    if m is None:
        raise UserError(
            f"network name {name!r} is not of the form baseA, B3B, B3B+, A3B, A3B+, R3B, baseAll: check its spelling"
        )
    try:
        return _run(m)
    except ValueError as e:  # "R3B+", "A0B"
        raise UserError(f"network name {name!r}: there is no such network ({e})") from e


def _run(m: re.Match[str]) -> Run:
    images = None if m["images"] is None else int(m["images"])
    if m["base"]:
        return Run("base", m["base"], images=images)
    if m["target"] is None:
        if m["n_all"] is None:
            return Run("base", ALL, images=images)
        return Run("RnB", ALL, int(m["n_all"]), images=images)
    kind = "B" if m["source"] == m["target"] else "A"
    kind = m["source"] if m["source"] in "PR" else kind
    return Run(f"{kind}nB{m['plus']}", m["target"], int(m["n"]), int(m["p"] or 0), images)


def parse_treatments(names: Sequence[str]) -> tuple[str, ...]:
    """Checks treatment names given by a user; accepts "⁺" for "+".

    Returns:
      The treatments in the paper's order, always including "base", the reference for all others.

    Raises:
      UserError: a name is unknown; lists every unknown name.
    """
    chosen = [name.strip().replace("⁺", "+") for name in names]
    unknown = [name for name in chosen if name not in KNOWN]
    if unknown or not chosen:
        raise UserError(
            f"treatments={','.join(names)}: {', '.join(unknown) or 'nothing'} is not a treatment; "
            f"choose from {','.join(KNOWN)}"
        )
    return tuple(t for t in KNOWN if t == "base" or t in chosen)


def grid(
    treatments: Sequence[str],
    layers: Sequence[int],
    preserve: Sequence[int] = (),
    depth: int | None = None,
    target_images: Sequence[int | None] = (None,),
) -> list[Run]:
    """Every network of one pair of tasks, bases first.

    Args:
      treatments: among `KNOWN`.
      layers: the values of n.
      preserve: the values of p for additional BnB and AnB networks with p preserved layers.
      depth: number of layers of the network; preserved layers must leave the last one fresh.
      target_images: numbers of training images per target class, each for copies and a network
        trained from scratch; None for all. The copied bases are trained on all images.
    """
    networks = [Run("base", half) for half in HALVES]
    for images in target_images:
        if images is not None:
            networks += [Run("base", half, images=images) for half in HALVES]
        for target in ("B", "A"):
            for n in layers:
                networks += [Run(t, target, n, images=images) for t in KNOWN[1:] if t in treatments]
                networks += [
                    Run(t, target, n, p, images)
                    for p in preserve
                    for t in ("BnB", "AnB")
                    if t in treatments and (depth is None or n + p < depth)
                ]
    return networks


def all_classes(
    treatments: Sequence[str], layers: Sequence[int], images: Sequence[int | None] = (None,)
) -> list[Run]:
    """Networks on all classes: a base, and random features for each n if they are among the treatments.

    Args:
      treatments: among `KNOWN`; those that copy layers are skipped.
      layers: the values of n.
      images: numbers of training images per class, each for separate networks; None for all.
    """
    networks = [Run("base", ALL, images=count) for count in images]
    if "RnB" in treatments:
        networks += [Run("RnB", ALL, n, images=count) for count in images for n in layers]
    return networks


#: Images of each class in the paper's reduced data sets. Source, of these and of `paper_half`: the
#: result folders of https://github.com/yosinski/convnet_transfer.
PAPER_REDUCED = (1, 2, 5, 10, 25, 50, 100, 250, 500, 750, 1000, 1300)


def paper_half(split: str, seed: int, layers: Sequence[int]) -> list[Run]:
    """The paper's networks on one pair of tasks, bases first.

    For random halves BnB with target A and AnB with both targets; of the first two (seeds 0 and 1)
    the same fine-tuned as well. For man-made / natural halves AnB with both targets.

    Args:
      split: "random" or "manmade_natural".
      seed: the split's.
      layers: the values of n.
    """
    networks = [Run("base", half) for half in HALVES]
    kinds = [("AnB", "B"), ("AnB", "A")]
    if split == "random":
        kinds.append(("BnB", "A"))
        if seed < 2:
            kinds += [(f"{treatment}+", target) for treatment, target in tuple(kinds)]
    return networks + [Run(treatment, target, n) for treatment, target in kinds for n in layers]
