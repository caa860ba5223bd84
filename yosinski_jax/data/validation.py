"""A validation part of a task: images of each class held out of training, for early stopping and model selection."""

import dataclasses

import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Task, drawn, few_images


def held_out(images: int, share: float) -> int:
    """How many of a class's `images` training images are held out: a rounded fraction, at least one and never all."""
    return min(max(1, int(share * images + 0.5)), images - 1)


def carve(task: Task, share: float, seed: int) -> Task:
    """The task with a fraction of each class's training images held out as its validation part.

    Args:
        task: one without a validation part.
        share: fraction of the images of each class, 0 to 1; see `held_out`.
        seed: random seed, 0 to 2**32 - 1.

    Raises:
        UserError: a class has only one training image.
    """
    counts = np.bincount(task.train_labels, minlength=len(task.classes))
    if counts.min() < 2:
        raise UserError(
            f"validation={share:g}: class {task.classes[counts.argmin()]} has only one training image, which cannot be held out; "
            "use 2 or more per class, or leave validation out"
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
    """The task with only a few images per class, including those for validation.

    What is held out here was also held out of the whole task, so a base trained on that has not seen it.

    Args:
        task: what `carve` returned with the same share; its test images stay.
        images_per_class: how many per class, including those held out.
        share: see `carve`.
        seed: random seed; draws of one seed are nested.

    Raises:
        UserError: a class has fewer images, or only one image per class is asked for, which cannot be held out.
    """
    if images_per_class < 2:
        raise UserError(
            f"target_images_per_class={images_per_class}: one image per class leaves none to hold out for "
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
