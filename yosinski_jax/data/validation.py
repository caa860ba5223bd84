"""A validation part of a task: training images of each class that nothing is trained on, to stop and to choose by."""

import dataclasses

import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Task, drawn, few_images


def held_out(images: int, share: float) -> int:
    """How many of a class's `images` training images are held out: a share, rounded, but at least one, and never all."""
    return min(max(1, int(share * images + 0.5)), images - 1)


def carve(task: Task, share: float, seed: int) -> Task:
    """The task with a share of the training images of each class held out as its validation part.

    Args:
        task: one without a validation part.
        share: of the images of each class, 0 to 1; see `held_out`.
        seed: of the draw, 0 to 2**32 - 1.

    Raises:
        UserError: a class has one training image only.
    """
    counts = np.bincount(task.train_labels, minlength=len(task.classes))
    if counts.min() < 2:
        raise UserError(
            f"validation={share:g}: class {task.classes[counts.argmin()]} has one training image, which cannot be held out; "
            "use 2 or more of each class, or leave validation out"
        )
    numbers = [held_out(int(count), share) for count in counts]
    out = np.zeros(len(task.train_index), bool)
    out[drawn(task.train_labels, numbers, [seed, 3])] = True
    return dataclasses.replace(
        task,
        train_index=task.train_index[~out],
        train_labels=task.train_labels[~out],
        validation_index=task.train_index[out],
        validation_labels=task.train_labels[out],
    )


def carve_few(task: Task, images_per_class: int, share: float, seed: int) -> Task:
    """The task with few images of each class, those for validation among them.

    What is held out here was held out of the whole task as well: a base trained on that has seen none of it.

    Args:
        task: what `carve` gave with the same share; its test images stay.
        images_per_class: how many of each class, those held out included.
        share: see `carve`.
        seed: of the draw; draws of one seed are nested.

    Raises:
        UserError: one image a class, of which none can be held out, or a class has fewer.
    """
    if images_per_class < 2:
        raise UserError(
            f"target_images_per_class={images_per_class}: of one image a class none can be held out for "
            f"validation={share:g}; use 2 or more, or leave validation out"
        )
    held = held_out(images_per_class, share)
    part = few_images(task, images_per_class - held, seed)
    chosen = drawn(task.validation_labels, [held] * len(task.classes), [seed, 4])
    return dataclasses.replace(
        part,
        validation_index=task.validation_index[chosen],
        validation_labels=task.validation_labels[chosen],
    )
