"""Batches of HR patches: drawn on the host from ``(seed, step)`` alone, cut wherever the pictures are.

The numbers are the same on every device and so are the patches, since cutting and mirroring move whole bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from blindsr_pretrain.data import Diet
from blindsr_pretrain.runtime import upload
from blindsr_pretrain.settings import TrainingSettings
from sr_env.photos import PhotoSource, augment, crops

#: Three for the kernel, the patch's softness, one for the task's own use, and whether it stays unblurred.
UNIFORMS_PER_PATCH = 6
#: Pictures stay on a GPU where they take no more than this share of its free memory.
_SHARE_OF_MEMORY = 0.25


@dataclass(frozen=True)
class Plan:
    """Where the patches of a batch are cut and what happens to them.

    Attributes:
        picture: Integers [B].
        tops: First rows, integers [B].
        lefts: First columns, integers [B].
        ways: Booleans [3, B]: upside down, mirrored, transposed (in this order).
        uniforms: Numbers in [0, 1), [B, 6].
    """

    picture: np.ndarray
    tops: np.ndarray
    lefts: np.ndarray
    ways: np.ndarray
    uniforms: np.ndarray


def plan_batch(
    diet: Diet, settings: TrainingSettings, step: int, processes: int = 1, share: slice = slice(None)
) -> Plan:
    """Draw one batch, and keep the share of it that belongs to this process.

    Args:
        diet: Pictures and their chances.
        settings: Seed, batch and patch size.
        step: Number of the step.
        processes: Processes that share the batch of ``processes * batch_size``.
        share: This process's part.
    """
    rng = np.random.default_rng([settings.seed, step])
    total = settings.batch_size * processes
    picture = rng.choice(len(diet.chances), total, p=diet.chances)
    room = diet.pictures.shape_array[picture] - settings.patch_size + 1
    tops, lefts = rng.integers(room[:, 0]), rng.integers(room[:, 1])
    ways = rng.random((3, total)) < 0.5
    uniforms = rng.random((total, UNIFORMS_PER_PATCH))
    return Plan(picture[share], tops[share], lefts[share], ways[:, share], uniforms[share])


class PatchCutter(ABC):
    """Plan -> patches, uint8 [B, P, P, 3]."""

    @abstractmethod
    def prepare(self, plan: Plan) -> Tensor:
        """What can be done ahead in another thread; on the host."""

    @abstractmethod
    def finish(self, prepared: Tensor) -> Tensor:
        """The patches, uint8 [B, P, P, 3] on the device."""


class HostCutter(PatchCutter):
    """Cuts on the host, from pictures that are decoded when they are first wanted.

    Args:
        pictures: The pictures.
        size: Patch side in pixels.
        device: Where the patches go.
    """

    def __init__(self, pictures: PhotoSource, size: int, device: torch.device) -> None:
        self.pictures, self.size, self.device = pictures, size, device

    def prepare(self, plan: Plan) -> Tensor:
        """Cut, mirror and transpose."""
        patches = crops(self.pictures, plan.picture, plan.tops, plan.lefts, self.size)
        return torch.from_numpy(augment(patches, plan.ways))

    def finish(self, prepared: Tensor) -> Tensor:
        """Copy to the device."""
        return upload(prepared, self.device)


class DeviceCutter(PatchCutter):
    """Keeps all pixels on the device, one after the other, and cuts a whole batch by one gather.

    Args:
        pictures: The pictures.
        used: Indices of those that may be wanted.
        size: Patch side in pixels.
        device: Where they are kept.
        threads: Threads that decode.
    """

    def __init__(
        self, pictures: PhotoSource, used: np.ndarray, size: int, device: torch.device, threads: int = 1
    ) -> None:
        self.size, self.device = size, device
        areas = np.zeros(len(pictures), np.int64)
        areas[used] = pictures.shape_array[used].astype(np.int64).prod(1)
        self.starts, self.widths = np.cumsum(areas) - areas, pictures.shape_array[:, 1]
        pixels = torch.empty(int(areas.sum()), 3, dtype=torch.uint8)
        buffer = pixels.numpy()

        def fill(index: int) -> None:
            buffer[self.starts[index] : self.starts[index] + areas[index]] = pictures[index].reshape(-1, 3)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, used.tolist()))
        self.pixels = pixels.to(device)
        self.offsets = torch.arange(size, device=device)

    def prepare(self, plan: Plan) -> Tensor:
        """Seven integers a patch, [7, B]."""
        rows = (self.starts[plan.picture], self.widths[plan.picture], plan.tops, plan.lefts, *plan.ways)
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    def finish(self, prepared: Tensor) -> Tensor:
        """Gather."""
        start, width, top, left, upside_down, mirrored, transposed = upload(prepared, self.device)[..., None]
        there, back = self.offsets, self.size - 1 - self.offsets
        row = (top + torch.where(upside_down > 0, back, there)) * width + start
        column = left + torch.where(mirrored > 0, back, there)
        first, second = torch.where(transposed > 0, column, row), torch.where(transposed > 0, row, column)
        return self.pixels[first[:, :, None] + second[:, None, :]]


def make_cutter(diet: Diet, size: int, device: torch.device, threads: int) -> PatchCutter:
    """On a GPU whose memory holds all pictures they are kept there; elsewhere they are cut on the host."""
    used = np.flatnonzero(diet.chances)
    if device.type == "cuda":
        needed = 3 * int(diet.pictures.shape_array[used].astype(np.int64).prod(1).sum())
        if needed <= _SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]:
            return DeviceCutter(diet.pictures, used, size, device, threads)
    return HostCutter(diet.pictures, size, device)


def prepared_batches(
    diet: Diet,
    settings: TrainingSettings,
    cutter: PatchCutter,
    steps: Iterable[int],
    processes: int = 1,
    process: int = 0,
) -> Generator[tuple[Tensor, np.ndarray], None, None]:
    """This process's part of the batch of every step; the next ones are cut meanwhile.

    Yields:
        Patches, uint8 [B, P, P, 3] on the device, and numbers in [0, 1), [B, 6] on the host.
    """
    share = slice(process, None, processes)

    def draw(step: int) -> tuple[Tensor, np.ndarray]:
        plan = plan_batch(diet, settings, step, processes, share)
        return cutter.prepare(plan), plan.uniforms

    with ThreadPoolExecutor(settings.workers) as pool:
        left = iter(steps)
        coming = deque(pool.submit(draw, step) for step in islice(left, settings.workers))
        while coming:
            prepared, uniforms = coming.popleft().result()
            coming.extend(pool.submit(draw, step) for step in islice(left, 1))
            yield cutter.finish(prepared), uniforms


def as_images(patches: Tensor) -> Tensor:
    """uint8 [B, P, P, 3] -> float32 [B, 3, P, P] in [0, 1], on the same device."""
    return patches.permute(0, 3, 1, 2).contiguous().float().div_(255)
