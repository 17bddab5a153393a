"""Networks: renderers (LR image and kernel code to SR image), kernel predictors, and their files."""

from sr_env.models.amnet import SIZES, AMLayer, AMNet, create_amnet, parameter_count
from sr_env.models.base import Renderer, register_renderer, registered_renderers
from sr_env.models.blend import BlendedRenderer, blend_renderers, check_texture
from sr_env.models.checkpoint import (
    RELEASED,
    Checkpoint,
    available_checkpoints,
    load_predictor,
    load_renderer,
    read_card,
    save_checkpoint,
    warn_of_other_renderer,
)
from sr_env.models.predictor import KernelPredictor

__all__ = [
    "RELEASED",
    "SIZES",
    "AMLayer",
    "AMNet",
    "BlendedRenderer",
    "Checkpoint",
    "KernelPredictor",
    "Renderer",
    "available_checkpoints",
    "blend_renderers",
    "check_texture",
    "create_amnet",
    "load_predictor",
    "load_renderer",
    "parameter_count",
    "read_card",
    "register_renderer",
    "registered_renderers",
    "save_checkpoint",
    "warn_of_other_renderer",
]
