"""A page in the browser: drop a photograph, see its kernel, move the kernel and watch the picture change.

    blindsr demo

The page is served to this machine alone, and neither it nor the server asks for anything outside: no fonts, no
statistics, no tunnel. Needs the extra ``demo`` (Gradio).
"""

from __future__ import annotations

import functools
import html
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sr_env.cli.demo_guard import Guard, check_hosts
from sr_env.cli.demo_head import HEAD
from sr_env.cli.demo_session import BLEND, BLENDS, SHIFTED, Shown, Studio, View, write_examples
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import Precision
from sr_env.utils.signals import stop_requests

_HOST = "127.0.0.1"
#: Seconds after which uploads and results are deleted, and how often they are looked through.
_KEPT, _SWEEP = 3600, 600
_WAITING = 32  # people in the queue; who comes later is told to try again
_INTRODUCTION = """# Blind super-resolution
Drop a blurry photograph: the blur kernel is predicted from it, and the picture is enlarged for that kernel. Move the
kernel and see what a wrong one does: too narrow leaves the picture soft, too wide rings."""


@dataclass
class Settings:
    """Serve the page.

    Attributes:
        model: Renderer that is chosen first: a name such as amgan_x4 or a file (.safetensors, .onnx). The default lies
            between two: a slider moves it from faithful to textured.
        port: Port on this machine; None takes the first free one from 7860.
        max_pixels: Pixels of the largest photograph that is accepted.
        max_upload: MB of the largest file that is accepted.
        device: Where to compute: auto, cpu, cuda, cuda:N or mps.
        precision: auto takes bf16 where the device computes in it.
        hosts: Further names that the page may be asked for by, such as that of a proxy before it. It answers to
            localhost, 127.0.0.1 and [::1], and to requests of its own page.
    """

    model: str = BLEND
    port: int | None = None
    max_pixels: int = 1_000_000
    max_upload: int = 20
    device: str = "auto"
    precision: Precision = "auto"
    hosts: tuple[str, ...] = ()


def _gradio() -> Any:
    """Gradio, told before its import to send no statistics.

    Raises:
        UsageError: It is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise UsageError(f"the page needs Gradio ({error}): pip install 'blindsr-gym[demo]'") from error
    return gradio


def build_page(studio: Studio, examples: Sequence[tuple[Path, Path]], folder: Path) -> Any:
    """The page over a studio.

    Args:
        studio: What opens and renders.
        examples: Files of LR and HR pictures; the first is shown when the page is opened.
        folder: Where uploads and results lie: nothing outside it is opened.

    Returns:
        The ``gradio.Blocks``, not yet served.

    Raises:
        UsageError: Gradio is not installed.
    """
    gr = _gradio()

    def on_page(
        function: Callable[..., Any], failed: Callable[[str], Any] = lambda message: gr.skip()
    ) -> Callable[..., Any]:
        """Turn mistakes of the user's into one message, and leave the page as it is, or as ``failed`` makes it.

        (Gradio's own way, an Error, would also put a mark on everything that was to change.) The message may hold a
        file's name, which is not HTML.
        """

        @functools.wraps(function)
        def checked(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except (UsageError, OSError, MemoryError) as error:
                message = html.escape(str(error) or type(error).__name__)
                gr.Warning(message, duration=20)
                return failed(message)

        return checked

    def closed(message: str) -> tuple[Any, ...]:
        """Values of ``everything`` where a photograph could not be opened: nothing of an earlier one stays."""
        empty = (None, None, None, gr.Image(None, visible=False), message, gr.File(None, visible=False))
        return *empty, *(gr.skip() for _ in range(3 + SHIFTED))

    def drawn(view: View) -> tuple[tuple[Any, ...], Shown]:
        """Values of ``outputs`` for a view, and what they show."""
        shown = studio.show(view)
        bars = gr.Image(shown.bars, visible=shown.bars is not None)
        stale = gr.File(None, visible=False)
        return (view, (shown.before, shown.after), shown.kernel, bars, shown.text, stale), shown

    def moved(view: View) -> tuple[Any, ...]:
        return drawn(view)[0]

    def at_prediction(view: View) -> tuple[Any, ...]:
        values, shown = drawn(view)
        dials = (gr.Slider(visible=dial is not None) for dial in (view.texture, view.denoise))
        width = float(np.clip(round(shown.width, 2), *view.widths))
        return *values, *dials, gr.Slider(value=width, maximum=view.widths[1]), *(0.0,) * SHIFTED

    def opened(view: View | None) -> View:
        if view is None:
            raise UsageError("no photograph is open: drop one and press Enlarge")
        return view

    def inside(sent: Any) -> Path | None:
        """The uploaded file of what a browser sent as an image."""
        if sent is None:
            return None
        path = sent.get("path") if isinstance(sent, dict) else None
        if not isinstance(path, str) or not Path(path).resolve().is_relative_to(folder.resolve()):
            raise UsageError("only uploaded files are opened: drop a photograph on the page")
        return Path(path)

    @functools.partial(on_page, failed=closed)
    def on_open(source: Any, truth: Any, model: str, texture: float, denoise: float) -> tuple[Any, ...]:
        photograph = inside(source)
        if photograph is None:
            raise UsageError("no photograph: drop one first, or choose an example")
        return at_prediction(studio.open(photograph, inside(truth), model, texture, denoise))

    @on_page
    def on_load(model: str, texture: float, denoise: float) -> tuple[Any, ...]:
        lr, hr = examples[0]
        return str(lr), str(hr), *at_prediction(studio.open(lr, hr, model, texture, denoise))

    @on_page
    def on_texture(view: View | None, texture: float) -> tuple[Any, ...]:
        return moved(studio.with_texture(opened(view), texture))

    @on_page
    def on_denoise(view: View | None, denoise: float) -> tuple[Any, ...]:
        return moved(studio.with_denoise(opened(view), denoise))

    @on_page
    def on_width(view: View | None, width: float) -> tuple[Any, ...]:
        return moved(studio.with_width(opened(view), width))

    @on_page
    def on_shift(view: View | None, *shifts: float) -> tuple[Any, ...]:
        return moved(replace(opened(view), shifts=tuple(map(float, shifts))))

    @on_page
    def on_reset(view: View | None) -> tuple[Any, ...]:
        view = opened(view)
        return at_prediction(replace(view, base=view.predicted, shifts=(0.0,) * SHIFTED))

    @on_page
    def on_click(view: View | None, event: Any) -> tuple[Any, ...]:
        column, row = event.index
        return moved(replace(opened(view), centre=(int(row), int(column))))

    on_click.__annotations__["event"] = gr.SelectData  # Gradio looks for the type itself, not its name

    @on_page
    def on_whole(view: View | None) -> Any:
        view = opened(view)
        target = folder / secrets.token_hex(8) / f"{view.path.stem}_x{studio.upscaler(view.model).scale}.png"
        studio.write_whole(view, target)
        return gr.File(str(target), visible=True)

    blocks = gr.Blocks(title="blindsr", analytics_enabled=False, delete_cache=(_SWEEP, _KEPT))
    with blocks:
        gr.Markdown(_INTRODUCTION)
        view = gr.State(None, time_to_live=_KEPT)
        with gr.Row():
            with gr.Column(scale=2):
                source = gr.Image(
                    type="filepath", label="Photograph", sources=["upload", "clipboard"], elem_id="source", height=280
                )
                truth = gr.Image(
                    type="filepath",
                    label="Ground truth, if you have it (for the metrics)",
                    sources=["upload"],
                    elem_id="truth",
                    height=160,
                )
                model = gr.Dropdown(list(studio.models), value=studio.model, label="Model", elem_id="model")
                run = gr.Button("Enlarge", variant="primary", elem_id="run")
                chosen = gr.Examples(
                    [[str(lr), str(hr)] for lr, hr in examples],
                    [source, truth],
                    cache_examples=False,
                    preload=False,
                    api_visibility="private",
                    elem_id="examples",
                    label="Examples: photographs blurred by a Gaussian of the given width, with their originals",
                )
            with gr.Column(scale=3):
                compare = gr.ImageSlider(
                    label="bicubic | SR", type="numpy", format="png", interactive=False, elem_id="compare"
                )
                texture = gr.Slider(
                    0,
                    1,
                    value=1,
                    step=0.05,
                    label="Texture: 0 is faithful (AMNet), 1 is textured (AMGAN)",
                    elem_id="texture",
                    visible=studio.model in BLENDS,
                )
                denoise = gr.Slider(
                    0,
                    1,
                    value=1,
                    step=0.05,
                    label="Noise and traces of JPEG taken away: 0 is none, 1 is all that is seen",
                    elem_id="denoise",
                    visible=bool(studio.upscaler(studio.model).basis.levels),
                )
                width = gr.Slider(
                    0.2,
                    4,
                    value=0.2,
                    step=0.01,
                    label="Kernel width (Gaussian, pixels of the result)",
                    elem_id="width",
                )
                shifts = [
                    gr.Slider(
                        -2,
                        2,
                        value=0,
                        step=0.05,
                        label=f"Added to component {number + 1} of the kernel's code (standard deviations)",
                        elem_id=f"shift{number + 1}",
                    )
                    for number in range(SHIFTED)
                ]
                reset = gr.Button("Back to the predicted kernel", elem_id="reset")
                text = gr.Markdown(elem_id="text")
                kernel = gr.Image(
                    show_label=False,
                    interactive=False,
                    format="png",
                    buttons=[],
                    elem_id="kernel",
                    alt_text="The predicted kernel, the kernel in use, and the middle row of both",
                )
                bars = gr.Image(
                    show_label=False,
                    interactive=False,
                    format="png",
                    buttons=[],
                    elem_id="bars",
                    alt_text="Bars of PSNR, SSIM and LPIPS for the bicubic picture and for SR",
                )
                whole = gr.Button("Make the whole picture", elem_id="whole")
                result = gr.File(label="Whole picture", interactive=False, visible=False, elem_id="result")
        outputs = [view, compare, kernel, bars, text, result]
        everything = [*outputs, texture, denoise, width, *shifts]
        inputs = [source, truth, model, texture, denoise]
        # One rendering at a time: two would take as long and twice the memory.
        options: dict[str, Any] = {
            "concurrency_id": "render",
            "concurrency_limit": 1,
            "api_visibility": "private",
            "show_progress": "minimal",
        }
        live = options | {"trigger_mode": "always_last"}
        # As sent by the browser: Gradio would decode the files without our limits and messages.
        opening = options | {"preprocess": False}
        run.click(on_open, inputs, everything, **opening)
        model.input(on_open, inputs, everything, **opening)
        texture.input(on_texture, [view, texture], outputs, **live)
        denoise.input(on_denoise, [view, denoise], outputs, **live)
        width.input(on_width, [view, width], outputs, **live)
        for slider in shifts:
            slider.input(on_shift, [view, *shifts], outputs, **live)
        reset.click(on_reset, [view], everything, **options)
        source.select(on_click, [view], outputs, **live)
        whole.click(on_whole, [view], [result], **options)
        chosen.load_input_event.then(on_open, inputs, everything, **opening)
        blocks.load(on_load, [model, texture, denoise], [source, truth, *everything], **options)
    blocks.queue(max_size=_WAITING, api_open=False)
    return blocks


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve the page until the block ends.

    Uploads, results and examples lie in a temporary folder that goes with it; no other file is read or served.

    Yields:
        The page's address.

    Raises:
        MissingFileError: No such model.
        UsageError: A setting is wrong, the port is taken, or Gradio is not installed.
    """
    if settings.max_upload < 1:
        raise UsageError(f"--max-upload {settings.max_upload}: give 1 MB or more")
    if settings.port is not None and not 0 < settings.port < 2**16:
        raise UsageError(f"--port {settings.port}: give 1 to 65535, or leave it out")
    check_hosts(settings.hosts)
    gr = _gradio()
    studio = Studio(
        settings.model, device=settings.device, precision=settings.precision, max_pixels=settings.max_pixels
    )
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="blindsr-demo-") as name:
        os.environ["GRADIO_TEMP_DIR"] = name  # read when the page's parts are made
        try:
            folder = Path(name).resolve()
            examples = write_examples(folder / "examples", studio.upscaler(studio.model).scale)
            page = build_page(studio, examples, folder)
            try:
                app, address, _ = page.launch(
                    server_name=_HOST,
                    server_port=settings.port,
                    share=False,
                    prevent_thread_lock=True,
                    quiet=True,
                    show_error=True,
                    footer_links=[],
                    head=HEAD,
                    run_history=False,
                    enable_monitoring=False,
                    ssr_mode=False,
                    pwa=False,
                    mcp_server=False,
                    max_file_size=f"{settings.max_upload}mb",
                    state_session_capacity=64,
                    app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
                    theme=gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
                )
            except OSError as error:
                taken = "no port is free" if settings.port is None else f"port {settings.port} is taken"
                raise UsageError(f"{taken}: give another --port") from error
            # Before all others: Gradio's own answers to preflights, of any origin under any foreign Host.
            app.middleware_stack = Guard(app.middleware_stack or app.build_middleware_stack(), settings.hosts)
            try:
                yield address
            finally:
                page.close(verbose=False)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def main(settings: Settings) -> None:
    """Serve the page until Ctrl-C."""
    with serving(settings) as address, stop_requests() as asked:
        print(f"{address} (Ctrl-C ends it)", flush=True)
        asked.wait()
