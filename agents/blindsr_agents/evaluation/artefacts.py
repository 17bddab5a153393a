"""What a renderer invents: a grid of its upscaling, a weave along the axes, ripples beside edges.

Each is a number on pictures whose HR is known, which says where nothing should be: flat tiles, tiles without edges, and
the ground beside edges that stand alone. All are in grey levels (luma times 255) or their squares, so that a constant
offset changes nothing.

* **Grid**: pixel shuffle gives each of the ``scale`` x ``scale`` phases filters of its own. In flat tiles, after a
  high-pass that leaves the period alone, the standard deviation of the phases' means.
* **Weave**: mean square along either axis at periods of 2.7 to 3.2 pixels, in tiles without strong edges. Beside it
  the *axial share*: how much stronger the axes are than the directions between them at the same periods. Texture and
  noise have about as much in every direction, a weave has its lines along the axes.
* **Ripple**: along the normals of strong edges, 3 to 8 HR pixels out on a side where HR is smooth, the mean square of
  SR - HR, averaged along the edge over as many pixels and without its mean and slope: an edge that is merely soft
  leaves little there. Beside it the *share across*: that over the same along the edge, averaged along the normal.
  Invented grain has as much either way, ripples run beside the edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_env.degradation import gaussian_taps
from sr_env.metrics.fidelity import weighted_channels
from sr_env.utils.checks import UsageError

#: What is measured, with the heading and the digits of a table.
MEASURES: dict[str, tuple[str, int]] = {
    "grid": ("grid", 3),
    "weave": ("weave", 3),
    "axial": ("axial share", 2),
    "ripple": ("ripple", 3),
    "across": ("share across", 2),
}
_GREY = (0.299, 0.587, 0.114)  # BT.601
_FLAT = 8.0  # grey levels: standard deviation of HR after the high-pass, under which a tile is flat
_QUIET = 30.0  # grey levels per pixel: largest gradient of HR in a tile without strong edges; cloth has less
_WEAVE_TILE = 64
_PERIODS = (2.7, 3.2)  # HR pixels
_STRONG = 12.0  # grey levels per pixel: gradient of HR that makes an edge
_REACH = (3.0, 8.0)  # HR pixels from the edge; along it half as far to either side
_STEP = 0.5  # HR pixels between samples
_SMOOTH = 1.5  # grey levels: standard deviation of HR along a normal, under which that side is empty
_POINTS = 2048  # of each picture, the strongest
_MARGIN = 12  # HR pixels from the border to an edge
#: Sides of pictures that are too short for one tile of each kind.
MIN_SIDE = 96


@dataclass(frozen=True)
class Places:
    """How many places of the HR pictures are looked at.

    Attributes:
        flat_tiles: Tiles for the grid.
        quiet_tiles: Tiles for the weave.
        edge_sides: Sides of edge points for the ripples.
    """

    flat_tiles: int
    quiet_tiles: int
    edge_sides: int


class ArtefactMeter:
    """Measures the artefacts of reconstructions of given pictures.

    Args:
        hr: HR pictures [B, 3, H, W] in [0, 1], both sides at least 96.
        scale: Magnification: the period of the grid, in pixels.

    Raises:
        UsageError: The pictures are too small.
    """

    def __init__(self, hr: Tensor, scale: int) -> None:
        if min(hr.shape[-2:]) < MIN_SIDE:
            raise UsageError(
                f"pictures of {hr.shape[-1]}x{hr.shape[-2]} pixels are too small to look for artefacts: "
                f"give at least {MIN_SIDE} a side"
            )
        self.scale, self.shape = scale, hr.shape
        self.hr = grey_levels(hr)
        self.flat = _grid_tiles(self.hr, scale).flatten(-2).std(-1, correction=0) < _FLAT
        gradient = gradients(self.hr)
        strength = gradient.norm(dim=1)
        self.quiet = _weave_tiles(strength).amax((-2, -1)) < _QUIET
        self._edges(strength, gradient)
        self.places = Places(int(self.flat.sum()), int(self.quiet.sum()), int(self.empty.sum()))

    def measure(self, images: Tensor) -> dict[str, float]:
        """The measures of :data:`MEASURES` on pictures of the same scenes; NaN where there is no place for one.

        Args:
            images: [B, 3, H, W] in [0, 1]; the HR pictures themselves give a grid and a weave of their own, no ripple.

        Raises:
            UsageError: Another shape than that of the HR pictures.
        """
        if images.shape != self.shape:
            raise UsageError(f"pictures {list(images.shape)} are compared with HR of {list(self.shape)}")
        grey = grey_levels(images)
        weave, axial = self._weave(grey)
        ripple, across = self._ripple(grey)
        return {"grid": self._grid(grey), "weave": weave, "axial": axial, "ripple": ripple, "across": across}

    def _grid(self, grey: Tensor) -> float:
        tiles, scale = _grid_tiles(grey, self.scale)[self.flat], self.scale
        phases = tiles.unflatten(-1, (-1, scale)).unflatten(-3, (-1, scale)).mean((-4, -2))  # [N, scale, scale]
        return float(phases.flatten(1).std(-1, correction=0).mean())

    def _weave(self, grey: Tensor) -> tuple[float, float]:
        tiles = _weave_tiles(grey)[self.quiet]
        window = torch.hann_window(_WEAVE_TILE, device=grey.device)
        window = window[:, None] * window
        # So scaled, the sum over all frequencies is the mean square of the tile under the window.
        spectrum = torch.fft.fft2((tiles - tiles.mean((-2, -1), keepdim=True)) * window).abs().square()
        power = spectrum.mean(0) / (_WEAVE_TILE**2 * window.square().sum())
        axes, between = _bands(grey.device)
        return float(power[axes].sum()), float(power[axes].mean() / power[between].mean())

    def _edges(self, strength: Tensor, gradient: Tensor) -> None:
        """Find the points of strong edges, and on which side of each HR is empty."""
        normals = gradient / strength[:, None].clamp_min(1e-6)
        height, width = strength.shape[-2:]
        rows, columns = torch.meshgrid(
            torch.arange(height, device=strength.device), torch.arange(width, device=strength.device), indexing="ij"
        )
        places = torch.stack((columns, rows)).float()
        ahead, behind = (
            _sample(strength, (places + step * normals).flatten(2).mT, "bilinear").view_as(strength)
            for step in (1.0, -1.0)
        )
        inside = (rows >= _MARGIN) & (rows < height - _MARGIN) & (columns >= _MARGIN) & (columns < width - _MARGIN)
        edge = inside & (strength >= _STRONG) & (strength >= ahead) & (strength > behind)
        ranked, index = torch.where(edge, strength, 0).flatten(1).topk(min(_POINTS, height * width), dim=1)
        normal = normals.flatten(2).gather(2, index[:, None].expand(-1, 2, -1)).mT  # [B, P, 2], x first
        point = torch.stack((index % width, index // width), -1).float()
        along = torch.arange(0, _REACH[1] - _REACH[0] + _STEP / 2, _STEP, device=strength.device)
        along = along - along.mean()
        out = along - along[0] + _REACH[0]
        outward = torch.stack((normal, -normal), 2)  # both sides: [B, P, 2 sides, 2]
        tangent = normal.flip(-1) * normal.new_tensor([-1.0, 1.0])
        # [B, P, sides, out, along, 2]: a square beside the edge, one side of it parallel to the edge
        self.squares = (
            point[:, :, None, None, None]
            + outward[:, :, :, None, None] * out[:, None, None]
            + tangent[:, :, None, None, None] * along[:, None]
        )
        trend = torch.stack((torch.ones_like(along), along), 1)
        self.detrend = torch.eye(len(along), device=along.device) - trend @ torch.linalg.pinv(trend)
        empty = self._beside(self.hr).mean(-1).std(-1, correction=0) < _SMOOTH
        self.empty = (ranked > 0)[..., None] & empty

    def _beside(self, grey: Tensor) -> Tensor:
        """What lies beside the edges: [B, P, sides, out, along]."""
        return _sample(grey, self.squares.flatten(1, 4), "bicubic").view(self.squares.shape[:-1])

    def _ripple(self, grey: Tensor) -> tuple[float, float]:
        invented = self._beside(grey - self.hr)[self.empty]
        across, along = ((invented.mean(dim) @ self.detrend).square().mean() for dim in (-1, -2))
        return float(across), float(across / along)


def grey_levels(images: Tensor) -> Tensor:
    """Full-range luma [B, H, W] in 0..255 of RGB images [B, 3, H, W] in [0, 1]."""
    return weighted_channels(images, _GREY) * 255


def _grid_tiles(grey: Tensor, scale: int) -> Tensor:
    """High-passed tiles [B, rows, columns, side, side] whose first pixels are of one phase.

    What is taken away is a mean over two periods, which is exactly that of the grid.
    """
    taps = grey.new_full((2 * scale + 1,), 1 / (2 * scale))
    taps[[0, -1]] /= 2
    smooth = F.conv2d(F.conv2d(grey[:, None], taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))[:, 0]
    rest = grey[:, scale:-scale, scale:-scale] - smooth
    side = 8 * scale
    return rest.unfold(1, side, side).unfold(2, side, side)


def _weave_tiles(grey: Tensor) -> Tensor:
    """Tiles [B, rows, columns, 64, 64] that overlap by half."""
    return grey.unfold(1, _WEAVE_TILE, _WEAVE_TILE // 2).unfold(2, _WEAVE_TILE, _WEAVE_TILE // 2)


def _bands(device: torch.device) -> tuple[Tensor, Tensor]:
    """Frequencies of a weave tile [64, 64] along the axes, and between them, at a weave's periods."""
    frequency = torch.fft.fftfreq(_WEAVE_TILE, device=device).abs()
    vertical, horizontal = torch.meshgrid(frequency, frequency, indexing="ij")
    low, high = 1 / _PERIODS[1], 1 / _PERIODS[0]
    beside = 1.5 / _WEAVE_TILE  # the window spreads a line along an axis over three frequencies across it
    along = (frequency >= low) & (frequency <= high)
    axes = (along[:, None] & (horizontal <= beside)) | (along & (vertical <= beside))
    radius = torch.hypot(vertical, horizontal)
    between = (
        (radius >= low) & (radius <= high) & (torch.minimum(vertical, horizontal) > radius * math.sin(math.pi / 8))
    )
    return axes, between


def gradients(grey: Tensor) -> Tensor:
    """Gradients [B, 2, H, W] (along x, along y), per pixel, of pictures [B, H, W] smoothed by a Gaussian of a pixel."""
    offsets = torch.arange(-4.0, 5.0, device=grey.device)
    bell = gaussian_taps(torch.ones(1, dtype=torch.float32, device=grey.device), len(offsets))[0]
    slope = offsets * bell / (offsets.square() * bell).sum()
    padded = F.pad(grey[:, None], (4, 4, 4, 4), mode="replicate")
    across = torch.stack((torch.outer(bell, slope), torch.outer(slope, bell)))
    return F.conv2d(padded, across[:, None])


def _sample(grey: Tensor, points: Tensor, mode: str) -> Tensor:
    """Values [B, N] of pictures [B, H, W] at points [B, N, 2], x first, in pixels."""
    size = points.new_tensor([grey.shape[-1] - 1, grey.shape[-2] - 1])
    return F.grid_sample(
        grey[:, None], (points / size * 2 - 1)[:, None], mode=mode, padding_mode="border", align_corners=True
    )[:, 0, 0]
