"""The methods that are compared: bicubic, the renderers with true and predicted kernels, and the peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from blindsr_agents.peers import load_dan, load_realesrgan, load_srmdnf, load_usrgan
from sr_env.degradation import Degradation, Kernels, bicubic_resize, family_of, quantize
from sr_env.models import AMNet
from sr_env.models.checkpoint import (
    Checkpoint,
    available_checkpoints,
    default_predictor,
    load_predictor,
    load_renderer,
    read_card,
    warn_of_other_renderer,
)
from sr_env.models.predictor import KernelPredictor
from sr_env.utils.checks import SCALES, MissingFileError, WeightsUnavailable, check_choice
from sr_env.utils.devices import Precision, autocast, channels_last
from sr_env.utils.digests import tensor_digest
from sr_env.utils.provenance import public_path

PEERS: tuple[str, ...] = ("srmdnf", "realesrgan", "dan", "usrgan")
TRUE, PREDICTED = "true kernel", "predicted kernel"


@dataclass(frozen=True)
class ReconstructionMethod:
    """One row of the benchmark.

    Attributes:
        name: Name of the row.
        reconstruct: (LR [B, 3, h, w], what happened to them) -> SR [B, 3, s*h, s*w], not rounded.
        networks: Everything whose parameters it needs: what reconstructs, and a predictor of ours after it.
        option: Setting that asks for it.
    """

    name: str
    reconstruct: Callable[[Tensor, Kernels], Tensor]
    networks: tuple[nn.Module, ...] = ()
    option: str = "renderers"


def identities(methods: Sequence[ReconstructionMethod]) -> dict[str, list[str]]:
    """By the setting that asks for them, what tells the networks of methods from others."""
    found: dict[str, list[str]] = {"renderers": [], "peers": [], "predictor": []}
    for method in methods:
        digests = [f"digest {tensor_digest(network.state_dict())}" for network in method.networks]
        found[method.option] += [f"{method.name} ({digest})" for digest in digests[:1]]
        found["predictor"] += [digest for digest in digests[1:] if digest not in found["predictor"]]
    return found


@torch.inference_mode()
def reconstruct(
    method: ReconstructionMethod, lr: Tensor, kernels: Kernels, precision: Precision = "fp32", at_once: int = 4
) -> Tensor:
    """Reconstruct many pictures, a few at once, which bounds the memory.

    Args:
        method: By which.
        lr: LR pictures [B, 3, h, w].
        kernels: Their true kernels.
        precision: Of the networks.
        at_once: Pictures at once.

    Returns:
        SR [B, 3, s*h, s*w], rounded to 8 bit.
    """
    parts = [slice(start, start + at_once) for start in range(0, len(lr), at_once)]
    with autocast(precision, lr.device):
        rendered = [method.reconstruct(lr[part], kernels.map(lambda x, part=part: x[part])) for part in parts]
    return quantize(torch.cat(rendered).float())


def reconstructions(
    hr: Tensor,
    methods: Sequence[ReconstructionMethod],
    degradation: Degradation,
    widths: Sequence[float],
    precision: Precision = "fp32",
) -> Iterator[tuple[str, float, Tensor]]:
    """Reconstruct the same pictures with every kernel width and by every method; each width is degraded once.

    Args:
        hr: HR pictures [B, 3, H, W] in [0, 1].
        methods: By which.
        degradation: How HR becomes LR.
        widths: Kernel widths in HR pixels.
        precision: Of the networks.

    Yields:
        Name of the method, width, and SR as of :func:`reconstruct`.
    """
    for width in widths:
        kernels = degradation.build(np.full(len(hr), width), device=hr.device)
        lr = degradation(hr, kernels)
        for method in methods:
            yield method.name, width, reconstruct(method, lr, kernels, precision)


def create_methods(
    scale: int,
    renderers: Sequence[str] | None = None,
    predictor: str | None = None,
    peers: Sequence[str] | None = None,
    peers_dir: Path | None = None,
    dan: Path | None = None,
    usrgan: Path | None = None,
    device: torch.device | str = "cpu",
    family: str = "isotropic",
) -> tuple[list[ReconstructionMethod], list[str]]:
    """The rows: bicubic, the renderers and the peers; and a line for each peer that cannot be had.

    Args:
        scale: Magnification.
        renderers: Names or paths; None takes all that are released for the scale.
        predictor: Name or path; None takes for each renderer the released one of its kernels, and no predicted kernel
            where there is none. Peers get those of ``predictor_x{scale}``.
        peers: Out of ``PEERS``; None takes those at hand. One for which a checkpoint is given is always taken.
        peers_dir: Folder with the weights of SRMDNF and Real-ESRGAN.
        dan: Checkpoint of DAN.
        usrgan: Checkpoint of USRGAN.
        device: Where the networks go.
        family: Kernel family of what is to be reconstructed; renderers of another one have no row with the true kernel,
            but for isotropic kernels, which all can write.

    Raises:
        MissingFileError: A checkpoint or folder does not exist.
        UsageError: A checkpoint is damaged, for another scale or basis, or a peer unknown.
        WeightsUnavailable: A peer that was asked for by name cannot be had.

    Warns:
        UserWarning: The predictor is an actor that was trained for another renderer.
    """
    check_choice("scale", scale, SCALES)
    for name in peers or ():
        check_choice("peer", name, PEERS)
    if peers_dir is not None and not peers_dir.is_dir():
        raise MissingFileError(f"no folder {str(peers_dir)!r}: --peers-dir names the one with the peers' weights")
    skipped = []
    if renderers is None:
        renderers = [name for name in available_checkpoints("renderer") if read_card(name)["scale"] == scale]
        if not renderers:
            skipped.append(f"renderers: none is released for scale {scale}, name one with --renderers")
    estimators: dict[str, Checkpoint[KernelPredictor] | None] = {}

    def estimator_of(name: str) -> Checkpoint[KernelPredictor] | None:
        if name not in estimators:
            there = predictor is not None or name in available_checkpoints("predictor")
            estimators[name] = load_predictor(name, scale=scale, device=device) if there else None
            if not there:
                skipped.append(f"predicted kernels: no {name} is released, name one with --predictor")
        return estimators[name]

    methods = [ReconstructionMethod("bicubic", partial(_bicubic, scale))]
    stems = [Path(name).stem for name in renderers]
    for name, stem in zip(renderers, stems, strict=True):
        renderer = load_renderer(name, scale=scale, device=device)
        label = stem if stems.count(stem) == 1 else public_path(name)
        if family in ("isotropic", family_of(renderer.basis, scale)):
            given = partial(_render_true, renderer)
            methods.append(ReconstructionMethod(f"{label}, {TRUE}", given, (renderer.network,)))
        estimator = estimator_of(predictor or default_predictor(renderer))
        if estimator is not None:
            load_predictor(estimator.path, scale=scale, basis=renderer.basis)  # refuses codes of another basis
            warn_of_other_renderer(estimator, renderer)
            methods.append(
                ReconstructionMethod(
                    f"{label}, {PREDICTED}",
                    partial(_render_predicted, renderer, estimator),
                    (renderer.network, estimator.network),
                )
            )

    authors = {"dan": dan, "usrgan": usrgan}
    estimator = estimator_of(predictor or f"predictor_x{scale}")
    for peer in PEERS:
        asked = peer in peers if peers is not None else None
        if asked is False and authors.get(peer) is None:
            continue
        try:
            rows = _peer_methods(peer, scale, peers_dir, authors.get(peer), estimator, device)
            methods += [replace(row, option="peers") for row in rows if family == "isotropic" or TRUE not in row.name]
        except WeightsUnavailable as error:
            if asked:
                raise
            skipped.append(f"{peer}: {error}")
    for method in methods:
        for network in method.networks:
            channels_last(network)  # the layout in which convolutions run fastest, for all alike
    return methods, skipped


def _bicubic(scale: int, lr: Tensor, kernels: Kernels) -> Tensor:
    return bicubic_resize(lr, (lr.shape[-2] * scale, lr.shape[-1] * scale))


def _render_true(renderer: Checkpoint[AMNet], lr: Tensor, kernels: Kernels) -> Tensor:
    return renderer.network(lr, renderer.basis.code_of(kernels))


def _render_predicted(
    renderer: Checkpoint[AMNet], estimator: Checkpoint[KernelPredictor], lr: Tensor, kernels: Kernels
) -> Tensor:
    return renderer.network(lr, estimator.basis.to_code(estimator.network(lr)))


def _blind(network: nn.Module, lr: Tensor, kernels: Kernels) -> Tensor:
    """A peer that is not given the kernel."""
    return network(lr)


def _given_kernels(network: nn.Module, lr: Tensor, kernels: Kernels) -> Tensor:
    """A peer that takes a kernel."""
    return network(lr, kernels.kernels)


def _predicted_kernels(
    estimator: Checkpoint[KernelPredictor], network: nn.Module, lr: Tensor, kernels: Kernels
) -> Tensor:
    """A peer that takes a kernel, given the one that our predictor's code stands for."""
    return network(lr, estimator.basis.decode(estimator.basis.to_code(estimator.network(lr))))


def _peer_methods(
    peer: str,
    scale: int,
    folder: Path | None,
    checkpoint: Path | None,
    estimator: Checkpoint[KernelPredictor] | None,
    device: torch.device | str,
) -> list[ReconstructionMethod]:
    """The rows of one peer: one where it is blind, else with the true kernel and with our predictor's."""
    if peer == "realesrgan":
        if scale != 4:
            raise WeightsUnavailable(f"Real-ESRGAN x4plus is for scale 4, not {scale}")
        network: nn.Module = load_realesrgan(folder).to(device)
        return [ReconstructionMethod("Real-ESRGAN x4plus", partial(_blind, network), (network,))]
    if peer == "srmdnf":
        name, network = "SRMDNF", load_srmdnf(folder, scale).to(device)
    elif checkpoint is None:
        raise WeightsUnavailable(f"no package carries its weights, name the authors' checkpoint with --{peer}")
    elif peer == "dan":
        network = load_dan(checkpoint, scale).to(device)
        return [ReconstructionMethod("DAN", partial(_blind, network), (network,))]
    else:
        name, network = "USRGAN", load_usrgan(checkpoint, scale).to(device)
    rows = [ReconstructionMethod(f"{name}, {TRUE}", partial(_given_kernels, network), (network,))]
    if estimator is not None:
        predicted = partial(_predicted_kernels, estimator, network)
        rows.append(ReconstructionMethod(f"{name}, {PREDICTED}", predicted, (network, estimator.network)))
    return rows
