"""The comparison of agents: its figures are those of the parts, and every gap is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation import actors as compare
from blindsr_agents.evaluation.actor_rows import Comparisons
from blindsr_agents.evaluation.actor_tables import to_markdown
from blindsr_agents.evaluation.actors import (
    MEAN_CODE,
    ORACLE,
    RANDOM_SEARCH,
)
from blindsr_agents.evaluation.scene_sets import BICUBIC, PRETRAINED, TRUE_KERNEL
from evaluate_agents import Settings, main, measure
from PIL import Image
from rich.console import Console

from sr_env.degradation import Degradation, quantize
from sr_env.metrics import create_metric
from sr_env.models import widened
from sr_env.models.checkpoint import load_predictor, load_renderer, save_checkpoint
from sr_env.models.predictor import KernelPredictor
from sr_env.utils.checks import UsageError


@pytest.fixture
def settings(tmp_path: Path, tiny_renderer: Path, tiny_predictor: Path, random_photos: list[np.ndarray]) -> Settings:
    (tmp_path / "bench" / "Set5").mkdir(parents=True)
    for number, image in enumerate(random_photos[:3]):
        Image.fromarray(image[:130, :125]).save(tmp_path / "bench" / "Set5" / f"{number}.png")
    return Settings(
        bench_dir=tmp_path / "bench",
        out=tmp_path / "out",
        sets=("Set5",),
        renderers=(str(tiny_renderer),),
        predictor=str(tiny_predictor),
        rewards=("psnr=1",),
        widths=(0.5, 2.0),
        metrics=("psnr", "ssim"),
        device="cpu",
        max_side=64,
    )


def text(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def write_actor(path: Path, predictor: Path, shift: float, **card: Any) -> Path:
    """A predictor whose first logit is off by so much."""
    start = load_predictor(predictor)
    network = KernelPredictor(**start.network.architecture)
    network.load_state_dict(start.network.state_dict())
    with torch.no_grad():
        network.head[-1].bias[0] += shift
    return save_checkpoint(path, network, start.basis, 4, card)


def test_comparison_end_to_end(settings: Settings, console: Console, tmp_path: Path, tiny_predictor: Path) -> None:
    seeds = [write_actor(tmp_path / f"actor_s{i}.safetensors", tiny_predictor, 0.2 * i) for i in range(2)]
    settings = replace(settings, actors=(f"mine={seeds[0]},{seeds[1]}",), oracle_evaluations=12)
    results = main(settings)
    assert isinstance(results, Comparisons)
    (table,) = results.tables
    assert list(table.rows) == [BICUBIC, MEAN_CODE, TRUE_KERNEL, PRETRAINED, "mine", RANDOM_SEARCH, ORACLE]
    assert (table.set, table.images, table.widths) == ("Set5", 3, [0.5, 2.0])
    rows = table.rows
    assert rows[PRETRAINED].gain == [0.0, 0.0]
    assert rows["mine"].seeds == 2
    assert rows["mine"].spread is not None
    assert rows["mine"].spread > 0
    for method in (MEAN_CODE, TRUE_KERNEL, PRETRAINED):  # where the searches started
        for search in (RANDOM_SEARCH, ORACLE):
            assert np.greater_equal(rows[search].values["psnr"], np.array(rows[method].values["psnr"]) - 1e-3).all()
    assert rows[ORACLE].share == 1
    assert rows[PRETRAINED].share == 0
    # The first seed is the pretrained actor itself: the second's gain, halved.
    alone = measure(replace(settings, actors=(f"mine={seeds[1]}",), oracle_evaluations=0), console)
    np.testing.assert_allclose(np.array(alone.tables[0].rows["mine"].gain) / 2, rows["mine"].gain, atol=1e-6)

    written = json.loads((tmp_path / "out" / "agents.json").read_text())
    assert written["tables"][0]["rows"]["mine"]["gain"] == pytest.approx(alone.tables[0].rows["mine"].gain)
    assert "| mine | 1 |" in (tmp_path / "out" / "agents.md").read_text()
    assert str(tmp_path) not in json.dumps(written)
    assert "12 renderings" in to_markdown(results)


def test_a_best_constant_is_what_the_others_are_compared_with(
    settings: Settings, console: Console, tmp_path: Path, tiny_predictor: Path
) -> None:
    constant = write_actor(tmp_path / "c.safetensors", tiny_predictor, 0.3, method="constant", reward={"psnr": 1.0})
    seeds = [write_actor(tmp_path / f"actor_s{i}.safetensors", tiny_predictor, 0.2 * i) for i in range(2)]
    settings = replace(settings, actors=(f"one for all={constant}", f"mine={seeds[0]},{seeds[1]}"))
    (table,) = main(settings).tables
    rows = table.rows
    assert rows["one for all"].over_constant is rows[PRETRAINED].over_constant is None
    assert rows["mine"].over_constant is not None
    label, gain, error = rows["mine"].over_constant
    assert (label, gain) == ("one for all", pytest.approx(np.mean(rows["mine"].gain) - np.mean(rows[label].gain)))
    assert error is not None
    assert f"than one for all ({gain:+.4f} ± {error:.4f})" in (tmp_path / "out" / "agents.md").read_text()


def test_actors_of_more_than_the_code_are_compared_where_actions_hold_as_much(
    settings: Settings, console: Console, tmp_path: Path, tiny_predictor: Path
) -> None:
    wide = widened(load_predictor(tiny_predictor), ("code", "sharpen"))
    with torch.no_grad():
        wide.network.head[-1].bias[10] = -0.1
    card = {"controls": wide.card["controls"]}
    path = save_checkpoint(tmp_path / "sharp.safetensors", wide.network, wide.basis, 4, card)
    settings = replace(settings, actors=(f"sharp={path}", f"plain={tiny_predictor}"), oracle_evaluations=13)
    with pytest.raises(UsageError, match="gives code, sharpen and here code is taken"):
        measure(settings, console)
    rows = measure(replace(settings, controls=("code", "sharpen")), console).tables[0].rows
    assert rows["plain"].gain == rows[PRETRAINED].gain == [0.0, 0.0]
    assert min(np.abs(rows["sharp"].gain)) > 1e-3
    assert np.mean(rows[ORACLE].gain) > 0


def test_guards_of_the_oracle(settings: Settings, console: Console) -> None:
    settings = replace(settings, oracle_evaluations=12, metrics=("ssim",), oracle_guards={"lpips": 1e-3})
    results = measure(settings, console)
    rows = results.tables[0].rows
    for search in (RANDOM_SEARCH, ORACLE):
        lost = np.array(rows[search].values["lpips"]) - rows[PRETRAINED].values["lpips"]
        assert (lost <= 1e-3 + 1e-5).all()
        assert min(rows[search].gain) >= 0
    assert "worse than the pretrained actor's: lpips by more than 0.001." in to_markdown(results)


def test_rows_by_hand(settings: Settings, console: Console, random_photos: list[np.ndarray]) -> None:
    (table,) = measure(settings, console).tables
    assert settings.renderers is not None
    renderer, metric = load_renderer(settings.renderers[0]), create_metric("psnr", border=4)
    for row, width in enumerate((0.5, 2.0)):
        values: dict[str, list[float]] = {MEAN_CODE: [], TRUE_KERNEL: []}
        for photo in random_photos[:3]:
            cut = photo[33:97, 30:94].copy()  # 64x64 around the centre of 130x125
            hr = torch.from_numpy(cut).permute(2, 0, 1)[None] / 255
            kernels = Degradation(4).build(np.array([width]))
            lr, code = Degradation(4)(hr, kernels), renderer.basis.encode(kernels.kernels)
            for method, given in ((MEAN_CODE, torch.zeros_like(code)), (TRUE_KERNEL, code)):
                values[method].append(float(metric(quantize(renderer.network(lr, given)), hr)))
        for method, each in values.items():
            assert table.rows[method].values["psnr"][row] == pytest.approx(np.mean(each), abs=1e-3)


def test_what_is_missing_is_named(settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "available_checkpoints", lambda kind: ())
    results = measure(replace(settings, sets=("Set5", "Set14"), metrics=("psnr", "niqe")), console)
    assert "skipped: trained actors: none is released for scale 4" in text(console)
    assert "skipped: Set14: no such folder" in text(console)
    assert "niqe: needs images of 104 pixels a side, the smallest has 64" in text(console)
    assert list(results.tables[0].rows) == [BICUBIC, MEAN_CODE, TRUE_KERNEL, PRETRAINED]
    assert "Left out: trained actors" in to_markdown(results)


def test_actors_of_other_tables_are_left_out(
    settings: Settings, console: Console, tmp_path: Path, tiny_predictor: Path
) -> None:
    path = write_actor(tmp_path / "a.safetensors", tiny_predictor, 0.1, renderer="other", reward={"psnr": 1.0})
    results = measure(replace(settings, actors=(f"mine={path}",)), console)
    assert "mine" not in results.tables[0].rows
    assert "trained actors: none for tiny_renderer, reward psnr" in text(console)


def test_bad_comparisons(settings: Settings, console: Console, tiny_predictor: Path) -> None:
    for change, message in (
        ({"actors": (f"{BICUBIC}={tiny_predictor}",)}, "two rows would be called 'bicubic'"),
        ({"actors": (f"a={tiny_predictor}", f"a={tiny_predictor}")}, "two rows would be called 'a'"),
        ({"rewards": ("niqe=1",)}, "no comparison by the reward niqe: niqe: needs images of 104"),
        ({"rewards": ("nice=1",)}, "unknown metric 'nice'"),
        ({"oracle_evaluations": 1}, "1 evaluations per scene are too few"),
        ({"oracle_evaluations": 12, "oracle_guards": {"niqe": 1.0}}, "no comparison by the guard niqe: niqe: needs"),
        ({"oracle_evaluations": 12, "oracle_guards": {"psnr": -1.0}}, "guard psnr=-1 of the oracle is not a positive"),
        ({"oracle_guards": {"psnr": 0.1}}, "oracle_guards without oracle_evaluations"),
        ({"oracle_evaluations": -1}, "-1 evaluations per scene are too few"),
        ({"max_side": 30}, "max_side 30 is under 32"),
        ({"widths": (1.0, 1.0)}, "kernel widths"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(replace(settings, **change), console)  # type: ignore[arg-type]
    assert "reward gain" not in text(console)  # nothing was measured before the mistake showed
