"""The optimizer that a recipe asks for, as one chain to be wrapped with `splicing.freeze`."""

import jax
import optax

from yosinski_jax.splicing import path_names
from yosinski_jax.study.recipes import Recipe


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """The whole chain for trainable leaves: decay on kernels, momentum, rate, biases at their own rate.

    Wrap it with `splicing.freeze`, chain nothing around it.
    """

    def chain(rate: float, decay: float) -> optax.GradientTransformation:
        schedule = rate
        if recipe.drop_every:
            # Not exponential_decay(staircase=True): that rounds step / drop_every in float32.
            schedule = lambda step: rate * recipe.drop_factor ** (step // recipe.drop_every)
        scale, momentum = optax.scale_by_learning_rate(schedule), optax.trace(recipe.momentum)
        order = (scale, momentum) if recipe.caffe_momentum else (momentum, scale)
        return optax.chain(optax.add_decayed_weights(decay) if decay else optax.identity(), *order)

    def kind(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "bias" if path_names(path)[-1] == "bias" else "kernel", tree
        )

    kernel = chain(recipe.learning_rate, recipe.weight_decay)
    bias = chain(recipe.learning_rate * recipe.bias_rate, 0.0)
    return optax.partition({"kernel": kernel, "bias": bias}, kind)
