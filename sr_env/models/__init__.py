"""Networks: renderers (LR image and kernel code to SR image), kernel predictors, and their files."""

from sr_env.models.amnet import SIZES, AMLayer, AMNet, create_amnet, parameter_count
from sr_env.models.base import Renderer, register_renderer, registered_renderers
from sr_env.models.blend import BlendedRenderer, blend_renderers, check_texture
from sr_env.models.checkpoint import (
    RELEASED,
    Checkpoint,
    available_checkpoints,
    card_controls,
    default_predictor,
    load_predictor,
    load_renderer,
    read_card,
    save_checkpoint,
    warn_of_other_renderer,
)
from sr_env.models.controls import CONTROLS, Controls, check_controls, partner_name, widened
from sr_env.models.predictor import KernelPredictor

__all__ = [
    "CONTROLS",
    "RELEASED",
    "SIZES",
    "AMLayer",
    "AMNet",
    "BlendedRenderer",
    "Checkpoint",
    "Controls",
    "KernelPredictor",
    "Renderer",
    "available_checkpoints",
    "blend_renderers",
    "card_controls",
    "check_controls",
    "check_texture",
    "create_amnet",
    "default_predictor",
    "load_predictor",
    "load_renderer",
    "parameter_count",
    "partner_name",
    "read_card",
    "register_renderer",
    "registered_renderers",
    "save_checkpoint",
    "warn_of_other_renderer",
    "widened",
]
