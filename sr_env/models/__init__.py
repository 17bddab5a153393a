"""Networks: renderers (LR image and kernel code to SR image), kernel predictors, and their files."""

from sr_env.models.amnet import SIZES, AMLayer, AMNet, create_amnet

__all__ = ["SIZES", "AMLayer", "AMNet", "create_amnet"]
