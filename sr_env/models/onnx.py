"""Networks as ONNX files: written from a checkpoint, and a renderer run from one by ONNX Runtime.

An ONNX file holds the network with batch, height and width left open. Its metadata hold the checkpoint's card and the
kernel basis, so that the file says by itself what its codes mean: :class:`~sr_env.upscale.upscaler.Upscaler` takes it
in the place of a checkpoint. Needs the extra ``onnx``; nothing of it is imported before it is used.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from sr_env.degradation import KernelBasis
from sr_env.models.amnet import amnet_radius
from sr_env.models.checkpoint import Checkpoint
from sr_env.models.checkpoint_file import Kind, check_architecture, check_card, parse_card
from sr_env.models.predictor import KernelPredictor
from sr_env.utils.checks import MIN_LR_SIZE, MissingFileError, UsageError, check_lr_size, check_sizes
from sr_env.utils.files import atomic_write

#: Largest difference to torch that a written file may show, in units of the picture's range or of the code.
TOLERANCE = 1e-3
#: Names of the inputs and outputs of each kind.
_INPUTS: Mapping[Kind, tuple[str, ...]] = {"renderer": ("lr", "code"), "predictor": ("lr",)}
_OUTPUT: Mapping[Kind, str] = {"renderer": "sr", "predictor": "code"}
#: Sizes at which a written file is compared with torch: odd, and unlike the one that it was traced with.
_CHECKED = ((1, 9, 13), (3, 32, 17))
#: Bound of what a file may say of a network's reach and width, by which memory is planned.
_LARGEST_RADIUS = 4096


def is_onnx(name: str | os.PathLike[str]) -> bool:
    """Whether a model's name means an ONNX file."""
    return Path(name).suffix.lower() == ".onnx"


def _needs(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        raise UsageError(f"ONNX files need the package {package} ({error}): pip install 'blindsr-gym[onnx]'") from error


class _CodePredictor(nn.Module):
    """The predictor as others can use it: LR -> code, without actions in between."""

    def __init__(self, predictor: KernelPredictor, basis: KernelBasis) -> None:
        super().__init__()
        self.predictor, self.basis = predictor, basis

    def forward(self, lr: Tensor) -> Tensor:
        return self.basis.to_code(self.predictor(lr))


def export_onnx(checkpoint: Checkpoint[Any], path: str | os.PathLike[str]) -> dict[str, float]:
    """Write a network as an ONNX file and compare what ONNX Runtime makes of it with torch.

    A renderer takes ``lr``, float32 ``[batch, 3, height, width]`` in [0, 1], and ``code``, float32 ``[batch, L]``, and
    gives ``sr``, float32 ``[batch, 3, scale*height, scale*width]``, not clamped. A predictor takes ``lr`` and gives
    ``code``. Batch and sides are free, from 8 pixels a side.

    Args:
        checkpoint: The network with its basis and card, on the CPU.
        path: ``.onnx`` file to write (atomically, and only if the comparison holds).

    Returns:
        Size compared (``"3x32x17"``: batch, height, width) -> largest absolute difference.

    Raises:
        UsageError: The path does not end in ``.onnx``, a package is missing, or the two differ by over
            ``TOLERANCE``.
        OSError: The file cannot be written.
    """
    path = Path(path)
    if not is_onnx(path):
        raise UsageError(f"ONNX path {str(path)!r} must end in .onnx")
    onnx, runtime = _needs("onnx"), _needs("onnxruntime")
    _needs("onnxscript")  # torch's exporter stands on it
    source = checkpoint.network
    kind: Kind = "predictor" if isinstance(source, KernelPredictor) else "renderer"
    network = _CodePredictor(source, checkpoint.basis).eval() if isinstance(source, KernelPredictor) else source
    model = _trace(network, kind, checkpoint.basis.code_length)
    card = {**checkpoint.card, "kind": kind, "basis": checkpoint.basis.digest}
    if kind == "renderer":  # whoever runs the file has no network to ask
        card["receptive_radius"] = source.receptive_radius
    state = {name: value.detach().cpu().contiguous() for name, value in checkpoint.basis.state_dict().items()}
    onnx.helper.set_model_props(
        model, {"card": json.dumps(card), "basis": base64.b64encode(save(state)).decode("ascii")}
    )
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    differences = _compare(network, _session(runtime, data, torch.device("cpu")), kind, checkpoint.basis.code_length)
    worst = max(differences.values())
    if not worst <= TOLERANCE:
        raise UsageError(
            f"ONNX Runtime {runtime.__version__} differs from torch by {worst:.2g}, over {TOLERANCE:g}: nothing was "
            "written, use other versions of onnxruntime and onnxscript"
        )
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return differences


def _trace(network: nn.Module, kind: Kind, code_length: int) -> Any:
    """The network as an ``onnx.ModelProto`` with batch, height and width left open."""
    batch = torch.export.Dim("batch", min=1)
    sides = {
        0: batch,
        2: torch.export.Dim("height", min=MIN_LR_SIZE),
        3: torch.export.Dim("width", min=MIN_LR_SIZE),
    }
    device = next(network.parameters()).device
    inputs: tuple[Tensor, ...] = (torch.rand(2, 3, 19, 22, device=device),)
    shapes: tuple[dict[int, Any], ...] = (sides,)
    if kind == "renderer":
        inputs, shapes = (*inputs, torch.zeros(2, code_length, device=device)), (*shapes, {0: batch})
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter's own remarks
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                inputs,
                dynamo=True,
                input_names=list(_INPUTS[kind]),
                output_names=[_OUTPUT[kind]],
                dynamic_shapes=shapes,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    assert program is not None
    model = program.model_proto
    model.doc_string = ""
    for node in model.graph.node:  # each carries the source lines it came from, with paths of the machine
        del node.metadata_props[:]
        node.doc_string = ""
    return model


@torch.inference_mode()
def _compare(network: nn.Module, session: Any, kind: Kind, code_length: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    differences = {}
    for count, height, width in _CHECKED:
        inputs = [torch.rand(count, 3, height, width, generator=generator)]
        if kind == "renderer":
            inputs.append(torch.randn(count, code_length, generator=generator))
        told = torch.from_numpy(_run(session, kind, *inputs))
        differences[f"{count}x{height}x{width}"] = float((told - network(*inputs)).abs().max())
    return differences


def _run(session: Any, kind: Kind, *inputs: Tensor) -> np.ndarray:
    arrays = [np.ascontiguousarray(x.detach().float().cpu().numpy()) for x in inputs]
    result: np.ndarray = session.run([_OUTPUT[kind]], dict(zip(_INPUTS[kind], arrays, strict=True)))[0]
    return result


def _session(runtime: ModuleType, model: bytes, device: torch.device) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest tile
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            raise UsageError(
                "this ONNX Runtime has no CUDA: install onnxruntime-gpu in the place of onnxruntime, or use device cpu"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    return runtime.InferenceSession(model, options, providers=providers)


class OnnxRenderer(nn.Module):
    """A renderer that ONNX Runtime runs: called as an :class:`~sr_env.models.AMNet` is, without gradients.

    Args:
        session: The ``onnxruntime.InferenceSession``.
        architecture: Constructor arguments of the network that it was.
        scale: Its magnification.
        code_length: Length L of its codes.
        receptive_radius: How many LR pixels around its own a pixel of SR depends on.
    """

    def __init__(
        self, session: Any, architecture: Mapping[str, Any], scale: int, code_length: int, receptive_radius: int
    ) -> None:
        super().__init__()
        self.session, self.architecture = session, dict(architecture)
        self.scale, self.code_length, self.receptive_radius = scale, code_length, receptive_radius

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """LR images [B, 3, h, w] in [0, 1] and codes [B, L] -> SR images, float32, on the LR images' device.

        Raises:
            UsageError: A side is under 8 pixels, or the code or the network's picture has another shape.
        """
        check_lr_size(*lr.shape[-2:])
        expected = (lr.shape[0], self.code_length)
        if code.shape != expected:
            raise UsageError(f"code shape {tuple(code.shape)} does not fit: this renderer takes {expected}")
        sr = torch.from_numpy(_run(self.session, "renderer", lr, code))
        made = (lr.shape[0], 3, self.scale * lr.shape[2], self.scale * lr.shape[3])
        if sr.shape != made:
            raise UsageError(
                f"the ONNX renderer makes {list(sr.shape)} of LR images {list(lr.shape)}, not {list(made)}: its card "
                "says another scale than the network has, export it again"
            )
        return sr.to(lr.device)


def load_onnx_renderer(
    path: str | os.PathLike[str], *, scale: int | None = None, device: torch.device | str = "cpu"
) -> Checkpoint[OnnxRenderer]:
    """Load a renderer that :func:`export_onnx` wrote.

    Args:
        path: The ``.onnx`` file.
        scale: The magnification needed; None takes any.
        device: Where ONNX Runtime computes: the CPU or CUDA.

    Raises:
        MissingFileError: No such file.
        UsageError: A package is missing, the file is damaged, is no renderer of ours or is for another scale.
    """
    path, device = Path(path), torch.device(device)
    if not path.is_file():
        raise MissingFileError(f"no ONNX file {str(path)!r}: write one with blindsr export NAME -o {path.name}")
    runtime = _needs("onnxruntime")
    try:
        session = _session(runtime, path.read_bytes(), device)
    except UsageError:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen types of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"ONNX file {str(path)!r} is damaged ({reason}): copy or export it again") from error
    try:
        properties = session.get_modelmeta().custom_metadata_map
        card = parse_card(properties["card"])
        kind, architecture, own_scale = card["kind"], card["architecture"], card["scale"]
        check_architecture(architecture)
        basis = KernelBasis.from_state(load(base64.b64decode(properties["basis"], validate=True)))
        digest = card["basis"]
        # Files written before renderers other than AMNet could be exported do not name it.
        radius = 0 if kind != "renderer" else int(card.get("receptive_radius") or amnet_radius(architecture))
        check_sizes(_LARGEST_RADIUS, receptive_radius=radius or 1, channels=architecture.get("channels", 1))
    except (KeyError, TypeError, ValueError, OverflowError, SafetensorError) as error:
        raise UsageError(
            f"ONNX file {str(path)!r} carries no card or kernel basis ({error}): write it with blindsr export"
        ) from error
    check_card(card, f"ONNX file {str(path)!r}")
    if kind != "renderer":
        raise UsageError(f"ONNX file {str(path)!r} is a {kind}, not a renderer: export a renderer")
    if basis.digest != digest:
        raise UsageError(
            f"ONNX file {str(path)!r} holds kernel basis {basis.digest}, its card says {digest}: export it again"
        )
    if scale is not None and own_scale != scale:
        raise UsageError(f"renderer {str(path)!r} is for scale {own_scale}, not {scale}: export one for that scale")
    renderer = OnnxRenderer(session, architecture, own_scale, basis.code_length, radius)
    return Checkpoint(renderer.eval(), basis.to(device), card, path)
