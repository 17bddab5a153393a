"""SR of whole pictures of any size: the upscaler, and the tiles it works in."""

from sr_env.upscale.codes import equivalent_widths, level_shares
from sr_env.upscale.defaults import default_model, list_models, load_textures
from sr_env.upscale.sizes import Size
from sr_env.upscale.upscaler import Progress, Upscaled, Upscaler

__all__ = [
    "Progress",
    "Size",
    "Upscaled",
    "Upscaler",
    "default_model",
    "equivalent_widths",
    "level_shares",
    "list_models",
    "load_textures",
]
