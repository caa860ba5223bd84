"""Recipes: everything about training that is not the network, the data or the treatment.

A network of the sweep and its base always share one recipe: full budget, same initialisers, same
schedule (the contrary is a known mistake of replications).
"""

import dataclasses
import math

from yosinski_jax.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one network is trained. Checks itself.

    Attributes:
      name: preset it comes from.
      learning_rate: rate at step 0, for kernels.
      batch_size: images a step, over all devices.
      epochs: passes over the task; one of `epochs` and `iterations` is given.
      iterations: steps, as the paper counts.
      momentum: 0 … 1.
      caffe_momentum: gather rate × gradient in the velocity, as Caffe does, so that a drop of the
        rate does not shrink the velocity already gathered; otherwise the rate multiplies the
        velocity, as in optax and PyTorch.
      weight_decay: added to the gradient as decay × weight, on kernels only.
      bias_rate: rate of biases as a multiple of the kernels' (the paper: 2).
      drop_every: steps after which the rate is multiplied by `drop_factor`, again and again; 0 for
        a constant rate.
      drop_factor: see `drop_every`.
      evaluate_every: epochs from one evaluation to the next; the last epoch is always evaluated.
      evaluate_steps: steps from one evaluation to the next, in place of `evaluate_every`, where
        training counts steps (streamed datasets); the last step is always evaluated.
      crop: side of the square crop in pixels (random in training, central in evaluation); 0 for
        none.
      mirror: whether training images are mirrored at random.
      subtract_mean: subtract the mean image of the task's training images (0–255 scale, as the
        paper); otherwise pixels are scaled to −1 … 1.
      bgr: channels in the order blue, green, red, as Caffe.
      dropout_in_frozen: whether dropout inside frozen layers stays active in training, as in the
        public code.
      frozen_batch_stats: what BatchNorm in frozen layers does in training: "keep" normalizes with
        its running statistics and leaves them alone; "update" normalizes with the batch's and
        updates them.
      precision: of the computation, "float32" or "bfloat16"; parameters and losses are float32 in
        both; "auto" is bfloat16 on GPU and TPU, float32 elsewhere.
    """

    name: str
    learning_rate: float
    batch_size: int
    epochs: int | None = None
    iterations: int | None = None
    momentum: float = 0.9
    caffe_momentum: bool = False
    weight_decay: float = 0.0
    bias_rate: float = 1.0
    drop_every: int = 0
    drop_factor: float = 0.1
    evaluate_every: int = 1
    evaluate_steps: int | None = None
    crop: int = 0
    mirror: bool = False
    subtract_mean: bool = False
    bgr: bool = False
    dropout_in_frozen: bool = True
    frozen_batch_stats: str = "keep"
    precision: str = "auto"

    def __post_init__(self):
        if (self.epochs is None) == (self.iterations is None):
            raise UserError(f"recipe {self.name}: give either epochs or iterations, and not both")
        for field in (
            "epochs", "iterations", "batch_size", "evaluate_every", "evaluate_steps"
        ):  # fmt: skip
            value = getattr(self, field)
            if value is not None and value < 1:
                raise UserError(f"--{field}={value}: must be a whole number of at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UserError(f"--learning_rate={self.learning_rate:g}: must be a number above 0")
        if not 0 <= self.momentum < 1:
            raise UserError(f"recipe {self.name}: momentum {self.momentum} is not in [0, 1)")
        if self.frozen_batch_stats not in ("keep", "update"):
            raise UserError(
                f"recipe {self.name}: frozen_batch_stats {self.frozen_batch_stats!r} is not keep or update"
            )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise UserError(
                f"--precision={self.precision}: is not a precision; choose from auto, float32, bfloat16"
            )

    def resolved(self) -> "Recipe":
        """The recipe with "auto" replaced by what it means on this machine's devices."""
        if self.precision != "auto":
            return self
        import jax

        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        return dataclasses.replace(self, precision=precision)

    def steps_per_epoch(self, images: int) -> int:
        """Whole batches in a task of `images` training images; the rest of each epoch's permutation is left out."""
        return images // self.batch_size

    def epochs_for(self, images: int) -> int:
        """Epochs to train on a task of `images` training images, rounded up where iterations are given."""
        if self.epochs is not None:
            return self.epochs
        assert self.iterations is not None
        return math.ceil(self.iterations / self.steps_per_epoch(images))

    def steps_for(self, images: int) -> int:
        """Steps to train on a task of `images` training images."""
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        return self.epochs * self.steps_per_epoch(images)

    def steps_to_evaluation(self, images: int) -> int:
        """Steps from one evaluation to the next on a task of `images` training images."""
        return self.evaluate_steps or self.evaluate_every * self.steps_per_epoch(images)

    @property
    def augments(self) -> bool:
        """Whether two passes over the same image differ."""
        return self.mirror or self.crop > 0


# The solver and network files of https://github.com/yosinski/convnet_transfer.
_PAPER = Recipe(
    "paper",
    learning_rate=0.01,
    batch_size=256,
    iterations=450_000,
    caffe_momentum=True,
    weight_decay=5e-4,
    bias_rate=2.0,
    drop_every=100_000,
    evaluate_steps=1_000,
    crop=227,
    mirror=True,
    subtract_mean=True,
    bgr=True,
)

#: Presets by name.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("digits", learning_rate=0.05, batch_size=64, epochs=20),
        # The classroom replication's budget, 20 epochs; rate and batch as the PyTorch
        # peer's.
        Recipe("cifar", learning_rate=0.01, batch_size=128, epochs=20),
        _PAPER,
        # Its solver files for the reduced data sets, all twelve alike.
        dataclasses.replace(
            _PAPER,
            name="paper_reduced",
            learning_rate=0.0125,
            iterations=200_000,
            drop_every=64_000,
        ),
        # The paper's recipe at the scale of Tiny ImageNet: half its batch, no crop of images that are
        # small already, the rate dropped after two fifths and four fifths of 40 × 500 images, and
        # pixels of −1 … 1, which the network's initial values are made for.
        Recipe(
            "caffenet64",
            learning_rate=0.01,
            batch_size=128,
            epochs=60,
            caffe_momentum=True,
            weight_decay=5e-4,
            bias_rate=2.0,
            drop_every=3_700,
            mirror=True,
        ),
    )
}


def get(name: str) -> Recipe:
    """The preset of that name.

    Raises:
      UserError: there is none.
    """
    if name not in RECIPES:
        raise UserError(f"--recipe={name}: is not a recipe; choose from {', '.join(RECIPES)}")
    return RECIPES[name]


def default_recipe(network: str) -> str:
    """Name of the preset made for a network."""
    return {"digits4": "digits", "caffenet": "paper", "caffenet64": "caffenet64"}.get(
        network, "cifar"
    )


def reduced(name: str) -> str:
    """Name of the preset that goes with the preset `name` for reduced data sets."""
    return {"paper": "paper_reduced"}.get(name, name)
