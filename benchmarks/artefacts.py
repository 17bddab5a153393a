"""What renderers invent on held-out pictures, beside HR: grid, weave and ripples.

    python benchmarks/artefacts.py --data FOLDER --renderers amnet_x4 amgan_v1_x4 amgan_x4

Centre crops of the photographs that pretraining holds out, blurred with the reported widths, reduced, rounded, and
rendered with the true kernel. ``blindsr_agents/evaluation/artefacts.py`` says what the columns are; the first renderer
is the baseline of the ripples.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from blindsr_agents.evaluation.artefacts import MEASURES, ArtefactMeter
from blindsr_agents.evaluation.methods import PREDICTED, create_methods, reconstructions
from blindsr_agents.evaluation.settings import HeldOutSettings, print_skipped
from blindsr_agents.evaluation.tables import Cells, console_table, join_widths
from blindsr_pretrain.data import held_out_photos
from rich.console import Console

from sr_env.photos import centre_crops
from sr_env.utils.files import check_writable, write_json
from sr_env.utils.images import to_images
from sr_env.utils.script import run_script

#: Method -> width -> measure.
Values = dict[str, dict[str, dict[str, float]]]


@dataclass(kw_only=True)
class Settings(HeldOutSettings):
    """Measure artefacts.

    Attributes:
        side: Side of the crops in HR pixels; smaller where the pictures are.
        peers: Other methods out of srmdnf, realesrgan.
        peers_dir: Folder with their weights.
        json: File for the figures.
    """

    renderers: tuple[str, ...] = ("amnet_x4", "amgan_x4")
    side: int = 320
    peers: tuple[str, ...] = ()
    peers_dir: Path | None = None
    json: Path | None = None


def artefact_cells(values: Values, baseline: str) -> Cells:
    """Header and rows: means over the widths, and the ripples as a ratio to the baseline's."""
    means = {
        method: {name: float(np.mean([each[name] for each in widths.values()])) for name in MEASURES}
        for method, widths in values.items()
    }
    cells = [["method", "", *(title for title, _ in MEASURES.values()), "ripple ratio"]]
    for method, mean in means.items():
        shown = [*((mean[name], digits) for name, (_, digits) in MEASURES.items())]
        shown.append((mean["ripple"] / means[baseline]["ripple"], 2))
        cells.append([method, "", *("-" if math.isnan(value) else f"{value:.{n}f}" for value, n in shown)])
    return cells


def main(settings: Settings) -> Values:
    """Measure every renderer, print the table, and write the figures."""
    s, console = settings, Console(width=160)
    if s.json is not None:
        check_writable(s.json.parent)
    device, degradation, widths = s.resolve()
    methods, skipped = create_methods(s.scale, s.renderers, s.predictor, s.peers, s.peers_dir, device=device)
    methods = [method for method in methods if not method.name.endswith(PREDICTED)]
    print_skipped(skipped, console)
    hr = to_images(centre_crops(held_out_photos(s.data, s.held_out), s.side, s.scale), device)
    meter = ArtefactMeter(hr, s.scale)
    values: Values = {"HR": {str(width): meter.measure(hr) for width in widths}}
    for name, width, sr in reconstructions(hr, methods, degradation, widths, s.precision):
        values.setdefault(name, {})[str(width)] = meter.measure(sr)
    places = meter.places
    title = (
        f"{len(hr)} pictures, mean of kernel widths {join_widths(widths)}: {places.flat_tiles} flat tiles, "
        f"{places.quiet_tiles} without strong edges, {places.edge_sides} sides of edges"
    )
    console.print(console_table(title, artefact_cells(values, methods[1].name)))
    if s.json is not None:
        write_json(s.json, {"about": s.about(device, widths), "places": asdict(places), "values": values})
    return values


if __name__ == "__main__":
    run_script(Settings, main)
