"""Renderers: networks that turn an LR image and a kernel code into an SR image."""

from sr_env.renderers.amnet import SIZES, AMLayer, AMNet, create_amnet

__all__ = ["SIZES", "AMLayer", "AMNet", "create_amnet"]
