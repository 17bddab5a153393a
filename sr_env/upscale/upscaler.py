"""SR = G(LR, mu(LR)) for whole pictures of any size, depth and kind, in tiles that fit the memory.

The renderer is convolutional, so that what a pixel of SR depends on lies within a known radius of it. Tiles overlap
by that radius on every side and only what no tile border has touched is kept: the picture is the one that a single
forward pass would give. All tiles of a picture have the same shape and go through the renderer in batches.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sr_env.degradation import KERNEL_SIZE, bicubic_resize, isotropic_kernels, level_values, unsharp
from sr_env.models import (
    BlendedRenderer,
    Checkpoint,
    KernelPredictor,
    default_predictor,
    load_predictor,
    load_renderer,
    warn_of_other_renderer,
)
from sr_env.models.controls import SHARPEN_RADIUS, SHARPEN_SIGMA, UPSCALED, Controls
from sr_env.models.onnx import is_onnx, load_onnx_renderer
from sr_env.upscale.channels import check_pixels, fill_hidden, is_gray, pil_pixels, rgb
from sr_env.upscale.codes import PictureCodes, equivalent_widths
from sr_env.upscale.defaults import default_model, load_textures
from sr_env.upscale.tiling import Axis, Strip, batches, padded, plan_tiles, to_float
from sr_env.utils.checks import SCALES, UsageError, check_choice
from sr_env.utils.devices import Precision, autocast, channels_last, resolve_device, uses_bf16

Kind = TypeVar("Kind", NDArray[Any], Image.Image, Tensor)
#: Called after every batch of tiles with the number of tiles done and the number of all.
Progress = Callable[[int, int], None]

#: Side in LR pixels of a region with a kernel of its own, and of the ramp over which neighbours pass into each other.
_REGION, _RAMP = 128, 32
#: A tile beyond this side saves little and would reach the limits of 32-bit indices on a GPU.
_LARGEST_TILE = 1024
#: Floats per LR pixel that a forward pass holds at its peak (measured: 5 to 10 feature maps in a block, by the method
#: that the convolution library takes; behind the body two maps, and four pictures of SR size at once).
_BODY_MAPS, _KEPT_MAPS, _SR_PICTURES = 10, 2, 4
#: Feature maps that a renderer is taken to have where its architecture does not say.
_UNKNOWN_MAPS = 64


@dataclass(frozen=True)
class Upscaled:
    """An enlarged picture and the kernels it was rendered with.

    Attributes:
        pixels: The picture: dtype and channels of the one given, both sides ``scale`` times as long.
        codes: Kernel codes, float32 ``[regions, L]``: one, or one per region where they vary over the picture.
        widths: Of each code the width of the nearest isotropic Gaussian, in HR pixels, float32 ``[regions]``.
        levels: What else each code says, float32 ``[regions]`` by name (:func:`~sr_env.degradation.level_values`): the
            ``noise`` and JPEG ``quality`` that the renderer was told, and ``sharpening``; empty of shorter codes.
        tiles: Number of tiles.
    """

    pixels: NDArray[Any]
    codes: NDArray[np.float32]
    widths: NDArray[np.float32]
    levels: Mapping[str, NDArray[np.float32]]
    tiles: int


class Upscaler:
    """Enlarges pictures: the kernel is predicted from the picture, or given, and the renderer does the rest.

    The predictor sees the whole picture where it has up to 768x768 pixels, and otherwise nine squares of 256x256
    spread evenly over it, whose pooled features are averaged; where ``max_memory`` is under 240 MB, fewer pixels.

    Args:
        model: Renderer: a short name or path (a checkpoint, or an ONNX file of :mod:`sr_env.models.onnx`, which
            computes in fp32), the name of a registered one, or an ``nn.Module`` (:class:`sr_env.models.Renderer`); None
            takes :func:`default_model` of the scale, at x4 one that knows noise and compression too.
        texture: In the place of a model: from 0, faithful (AMNet), to 1, textured (AMGAN), x4 alone. Between the two
            their pictures are blended, at the time of both. :attr:`texture` moves it. None takes one model.
        clean: Where no model is named, take those that know of blur alone, which are better on clean photographs.
        scale: Magnification, which the renderer must have; None takes the renderer's (4 where no model is named).
        predictor: Kernel predictor by short name or path; None takes the released one of the scale. An actor that was
            trained with the control "sharpen" sharpens, too.
        device: ``"auto"`` takes CUDA where there is one.
        precision: ``"auto"`` takes bf16 where the device computes in it.
        max_memory: Bytes that tiles may take while they are rendered, the pictures themselves not counted. A picture
            for which it is too little is refused.
        spatially_varying: Predict a kernel for each region of 128x128 LR pixels instead of one for the picture, for
            photographs of which parts are out of focus; neighbouring regions are blended.
        kernel_width: Width of an isotropic Gaussian in HR pixels, instead of a prediction.
        kernel: Blur kernel ``[21, 21]`` at HR resolution, instead of a prediction.
        denoise: Share of the noise and of the traces of JPEG compression that is taken away, 0 to 1; None takes all of
            it, and a model that knows of none takes nothing else.

    Raises:
        MissingFileError: No such model or predictor; lists the released ones.
        UsageError: A checkpoint or setting is wrong or does not fit the others, naming the remedy.

    Warns:
        UserWarning: The predictor is an actor that was trained for another renderer.

    Example:
        >>> Upscaler("amgan_x4")(Image.open("photo.jpg")).save("larger.png")
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | None = None,
        *,
        texture: float | None = None,
        clean: bool = False,
        scale: int | None = None,
        predictor: str | os.PathLike[str] | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        max_memory: float = 1e9,
        spatially_varying: bool = False,
        kernel_width: float | None = None,
        kernel: NDArray[Any] | None = None,
        denoise: float | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.bf16 = uses_bf16(precision, self.device)
        if kernel is not None and kernel_width is not None:
            raise UsageError("both a kernel and a kernel width are given: give one of them, or none to predict it")
        given = kernel is not None or kernel_width is not None
        if given and spatially_varying:
            raise UsageError("a given kernel holds for the whole picture: leave it out, or spatially_varying")
        if given and predictor is not None:
            raise UsageError("with a given kernel nothing is predicted: leave out the kernel or the predictor")
        if not max_memory > 0:
            raise UsageError(f"max_memory is {max_memory}: give a positive number of bytes")
        if scale is not None:
            check_choice("scale", scale, SCALES)
        spec = default_model(scale or 4, clean) if model is None else model
        self.model = type(spec).__name__ if isinstance(spec, nn.Module) else str(spec)
        if model is not None and clean:
            raise UsageError(f"clean chooses where no model is named: leave it out, or the model {self.model!r}")
        if model is not None and texture is not None:
            raise UsageError(
                f"texture {texture} is for two models of its own: leave it out, or the model {self.model!r}"
            )
        if is_onnx(self.model) and precision == "bf16":
            raise UsageError(f"the ONNX file {self.model!r} computes in fp32: give precision auto or fp32")
        checkpoint: Checkpoint[Any]
        if texture is not None:
            checkpoint = load_textures(scale or 4, texture, self.device, clean)
            self.model = str(checkpoint.path)
        elif is_onnx(self.model):
            checkpoint = load_onnx_renderer(self.model, scale=scale, device=self.device)
        else:
            checkpoint = load_renderer(spec, scale=scale, device=self.device)
        self.renderer: Any = channels_last(checkpoint.network)
        self.basis, self.scale = checkpoint.basis, checkpoint.scale
        if denoise is not None and not (self.basis.levels and 0 <= denoise <= 1):
            raise UsageError(
                f"denoise {denoise}: give a share from 0 to 1"
                + ("" if self.basis.levels else f", and a model that knows noise, which {self.model} does not")
            )
        self._margin = max(self.renderer.receptive_radius, 2)  # two: the bicubic alpha's reach
        self.max_memory, self.spatially_varying = float(max_memory), spatially_varying
        known = self.basis.encode(self._kernel(kernel, kernel_width))[:, : self.basis.coefficients] if given else None
        network: KernelPredictor | None = None
        if not given or self.basis.levels:
            loaded = self._load_predictor(predictor, checkpoint)
            warn_of_other_renderer(loaded, checkpoint)
            network = channels_last(loaded.network)
        wide = network is not None and network.code_length > self.basis.code_length
        controls = Controls(UPSCALED if wide else UPSCALED[:1], checkpoint, None)
        self._margin += wide * math.ceil(SHARPEN_RADIUS / self.scale)
        share = 1.0 if denoise is None else denoise
        self.codes = PictureCodes(self.basis, network, controls, known, share, self._computing)

    @property
    def texture(self) -> float | None:
        """From 0, faithful, to 1, textured; None where one model renders. Set it between pictures: it costs nothing.

        Raises:
            UsageError: It is set outside [0, 1], or where one model renders.
        """
        return self.renderer.texture if isinstance(self.renderer, BlendedRenderer) else None

    @texture.setter
    def texture(self, texture: float) -> None:
        if not isinstance(self.renderer, BlendedRenderer):
            raise UsageError(f"texture {texture}: {self.model} is one model, make an Upscaler(texture={texture})")
        self.renderer.texture = texture

    def _load_predictor(
        self, name: str | os.PathLike[str] | None, renderer: Checkpoint[Any]
    ) -> Checkpoint[KernelPredictor]:
        if name is not None and is_onnx(name):
            raise UsageError(
                f"predictor {str(name)!r} is an ONNX file, and only renderers are run from ONNX: give the .safetensors "
                "file that it was exported from"
            )
        return load_predictor(
            default_predictor(renderer) if name is None else name,
            scale=self.scale,
            basis=self.basis,
            device=self.device,
            controls=UPSCALED,
        )

    def _computing(self) -> torch.autocast:
        """The context in which the networks compute."""
        return autocast("bf16" if self.bf16 else "fp32", self.device)

    def _kernel(self, kernel: NDArray[Any] | None, width: float | None) -> Tensor:
        """The given kernel as float32 [1, K, K], summing to one."""
        size = self.basis.kernel_size
        if width is not None:
            if not 0 < width < size:
                raise UsageError(f"kernel width {width}: give HR pixels between 0 and {size}, such as 1.6")
            return isotropic_kernels(torch.tensor([float(width)], device=self.device), size)
        array = np.asarray(kernel)
        if array.shape not in ((KERNEL_SIZE,) * 2, (size,) * 2) or array.dtype.kind not in "fiu":
            raise UsageError(
                f"the kernel is {array.dtype} of shape {list(array.shape)}: give numbers [{KERNEL_SIZE}, {KERNEL_SIZE}]"
            )
        array = array.astype(np.float64)
        total = array.sum()
        if not (np.isfinite(array).all() and total > 0):
            raise UsageError(f"the kernel sums to {total}: give finite weights with a positive sum")
        return torch.from_numpy((array / total).astype(np.float32))[None].to(self.device)

    # -------------------------------------------------------------------------------------------------- the pictures

    def __call__(self, image: Kind) -> Kind:
        """Enlarge a picture and return one of the same kind.

        Args:
            image: One of

                * numpy: gray ``[H, W]``, gray and alpha ``[H, W, 2]``, RGB ``[H, W, 3]`` or RGBA ``[H, W, 4]``; uint8,
                  uint16 over the full range, or float in [0, 1];
                * a PIL image (a palette and CMYK become RGB, bilevel becomes gray; as it is stored: its EXIF
                  orientation is not applied);
                * torch: float RGB in [0, 1], ``[3, H, W]`` or ``[B, 3, H, W]``, any device.

        Returns:
            The picture with both sides ``scale`` times as long, in the same kind, depth and channels, floats within
            [0, 1]. Alpha is enlarged bicubically, and colour beneath alpha 0 has no effect. A picture with
            R = G = B everywhere keeps it. No gradient reaches the image.

        Raises:
            UsageError: It is of another kind, empty, not finite, or too large for ``max_memory``, or the renderer makes
                numbers of it that are not finite.
        """
        if isinstance(image, Tensor):
            return self._upscale_tensor(image)
        if isinstance(image, Image.Image):
            return Image.fromarray(self.upscale(pil_pixels(image)).pixels)
        if isinstance(image, np.ndarray):
            return self.upscale(image).pixels
        raise UsageError(f"cannot enlarge a {type(image).__name__}: give a numpy array, a PIL image or a torch tensor")

    def upscale(
        self,
        pixels: NDArray[Any],
        *,
        code: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
        max_memory: float | None = None,
    ) -> Upscaled:
        """Enlarge an array, as :meth:`__call__` does, and say with which kernel.

        Args:
            pixels: As there.
            code: Kernel code ``[L]`` of the whole picture, instead of the one predicted or given to the upscaler; with
                it nothing is sharpened.
            progress: Called after every batch of tiles.
            max_memory: Bytes for this picture's tiles; None takes the upscaler's.

        Raises:
            UsageError: As there, or the code has another length.
        """
        stack = self._stack(pixels)
        given = None
        if code is not None:
            given = torch.from_numpy(np.asarray(code, np.float32)).to(self.device)
            if given.shape != (self.basis.code_length,):
                raise UsageError(f"the code has shape {list(given.shape)}: give [{self.basis.code_length}]")
        result, codes, tiles = self._upscale(stack, progress, max_memory, given)
        shape = (*result.shape[1:3], *pixels.shape[2:])
        levels = level_values(codes[:, self.basis.coefficients :]) if self.basis.levels else {}
        widths = equivalent_widths(codes, self.basis).cpu().numpy()
        said = {name: value.cpu().numpy() for name, value in levels.items()}
        return Upscaled(result.reshape(shape), codes.cpu().numpy(), widths, said, tiles)

    @torch.inference_mode()
    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """The kernel code of a picture, as :meth:`upscale` would use it, without enlarging.

        Args:
            pixels: As in :meth:`__call__`.

        Returns:
            float32 ``[L]``.

        Raises:
            UsageError: As there.
        """
        codes = self.codes.of_pictures(padded(self._stack(pixels)), self.max_memory)
        code: NDArray[np.float32] = codes[0, : self.basis.code_length].cpu().numpy()
        return code

    def _stack(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """A checked array as [1, H, W, C]."""
        check_pixels(pixels)
        return fill_hidden(pixels.reshape(1, *pixels.shape[:2], -1))

    def _upscale_tensor(self, image: Tensor) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape or not image.is_floating_point():
            raise UsageError(
                f"the image is {image.dtype} {list(image.shape)}: give a float tensor [3, H, W] or [B, 3, H, W]"
            )
        stack = image.detach().float().reshape(-1, *image.shape[-3:]).permute(0, 2, 3, 1).cpu().numpy()
        if not (np.isfinite(stack).all() and stack.min() >= 0 and stack.max() <= 1):
            raise UsageError(f"the image's values span {stack.min()} to {stack.max()}: scale them to [0, 1]")
        result = torch.from_numpy(self._upscale(stack)[0]).permute(0, 3, 1, 2)
        return result.reshape(*image.shape[:-2], *result.shape[-2:]).to(image.device, image.dtype)

    # ----------------------------------------------------------------------------------------------------- the work

    @torch.inference_mode()
    def _upscale(
        self,
        stack: NDArray[Any],
        progress: Progress | None = None,
        max_memory: float | None = None,
        code: Tensor | None = None,
    ) -> tuple[NDArray[Any], Tensor, int]:
        """Pictures [B, H, W, C] -> [B, s*H, s*W, C], codes [B or regions, L] and the number of tiles."""
        count, height, width, channels = stack.shape
        gray = torch.from_numpy(is_gray(stack))
        stack = padded(stack)  # what is added is cut off again
        memory = self.max_memory if max_memory is None else max_memory
        rows, columns, batch = self._plan((count, *stack.shape[1:3], channels), memory)
        tiles = list(itertools.product(range(count), range(len(columns.starts))))
        if code is not None:
            codes: Tensor | None = code.expand(count, -1)
        else:
            codes = None if self.spatially_varying else self.codes.of_pictures(stack, memory)
        used: list[Tensor] = []
        s = self.scale
        out = np.empty((count, s * height, s * width, channels), stack.dtype)
        strip = Strip(out, s, rows, stack.shape[2])
        done, total = 0, len(tiles) * len(rows.starts)
        for row, top in enumerate(rows.starts):
            for chosen in batches(tiles, batch):
                windows = np.stack(
                    [
                        stack[image, top : top + rows.size, columns.starts[c] : columns.starts[c] + columns.size]
                        for image, c in chosen
                    ]
                )
                lr = to_float(windows, self.device)
                if codes is None:
                    given = self.codes.of_tiles(rgb(lr))
                    used.append(given)
                else:
                    given = codes[[image for image, _ in chosen]]
                sr = self._render(lr, given, gray[[image for image, _ in chosen]]).cpu()
                for (image, c), tile in zip(chosen, sr, strict=True):
                    strip.add(image, tile, columns, c)
                done += len(chosen)
                if progress is not None:
                    progress(done, total)
            strip.finish(row)
        return out, (torch.cat(used) if codes is None else codes)[:, : self.basis.code_length], total

    def _render(self, lr: Tensor, codes: Tensor, gray: Tensor) -> Tensor:
        """LR tiles [B, C, h, w] in [0, 1], codes as of ``PictureCodes``, which are gray [B] -> [B, C, s*h, s*w]."""
        codes, strength = codes.tensor_split([self.basis.code_length], dim=1)
        with self._computing():
            colour = rgb(lr).contiguous(memory_format=torch.channels_last)
            sr = self.renderer(colour, codes).float()
        if not bool(sr.sum().isfinite()):  # one that is not spreads to the sum
            raise UsageError(
                f"renderer {self.model!r} makes numbers of this picture that are not finite: use other weights"
                + (", or precision fp32" if self.bf16 else "")
            )
        if strength.shape[1]:
            sr = unsharp(sr, strength[:, 0], SHARPEN_SIGMA)
        if gray.any():  # gray stays gray, in one channel or in three
            sr = torch.where(gray.to(sr.device)[:, None, None, None], sr.mean(1, keepdim=True), sr)
            sr = sr[:, :1] if lr.shape[1] < 3 else sr
        if lr.shape[1] in (2, 4):
            sr = torch.cat((sr, bicubic_resize(lr[:, -1:], (sr.shape[-2], sr.shape[-1]))), 1)
        return sr

    def _plan(self, shape: tuple[int, int, int, int], max_memory: float) -> tuple[Axis, Axis, int]:
        """Tiles of pictures [B, H, W, C], and how many go through the renderer at once."""
        ramp = _RAMP if self.spatially_varying else 0
        margin = self._margin + ramp // 2
        maps = self.renderer.architecture.get("channels", _UNKNOWN_MAPS)
        pictures = (3 * _SR_PICTURES + shape[3]) * self.scale**2
        waiting = 0 if self.texture is None else 3 * self.scale**2  # the first picture, while the second is rendered
        return plan_tiles(
            shape,
            scale=self.scale,
            margin=margin,
            ramp=ramp,
            largest=max(_REGION + 2 * margin, 0 if self.spatially_varying else _LARGEST_TILE),
            bytes_per_pixel=4 * (waiting + max(_BODY_MAPS * maps, _KEPT_MAPS * maps + pictures)),
            max_memory=max_memory,
        )
