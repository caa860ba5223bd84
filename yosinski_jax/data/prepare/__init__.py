"""Writing datasets that TFDS reads, without TensorFlow: CIFAR, ImageNet.

Imports `base` and `data`; the command line imports it. Door: `entry.prepare`.
"""
