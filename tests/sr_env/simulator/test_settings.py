"""The settings: each wrong one is named, with what is valid, before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError


@pytest.fixture
def settings(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return tiny_settings


def make(settings: dict[str, Any], **changes: Any) -> Simulator:
    return Simulator(SimulatorSettings.from_kwargs(settings | changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reference": "oracle"}, "unknown reference 'oracle'.*bicubic, predictor, none"),
        ({"scale": 5}, "unknown scale 5.*2, 3, 4"),
        ({"patch_size": 66}, "patch_size 66 does not fit scale 4"),
        ({"patch_size": 16}, "patch_size 16 does not fit scale 4.*at least 32"),
        ({"patch_size": 64.0}, "patch_size 64.0 is not a whole number"),
        ({"patch_size": 512}, "smaller than the 512x512 needed"),
        ({"reward": {"psnrr": 1}}, "unknown metric 'psnrr'.*lpips"),
        ({"reward": {}}, "mapping"),
        ({"info_metrics": ["nope"]}, "unknown metric 'nope'"),
        ({"kernels": "motion"}, "unknown kernel family 'motion'.*isotropic, anisotropic"),
        ({"reduction": "area"}, "unknown reduction 'area'"),
        ({"widths": (2.0, 1.0)}, r"kernel widths \(2.0, 1.0\)"),
        ({"device": "cuda:77"}, "cuda:77.*use 'cpu'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "meta"}, "device 'meta' holds no numbers"),
        ({"photos": "x" * 15_000}, "photos 'xxx.* cannot be looked up: File name too long"),
        ({"widths": np.array([2.0, 1.0])}, r"kernel widths \(2.0, 1.0\) are not a range"),
        ({"precision": "fp8"}, "unknown precision 'fp8'.*fp32"),
        ({"metric_precision": "half"}, "unknown precision 'half'.*fp32"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"correction": 0.0}, "correction 0.0"),
        ({"scale": 2, "patch_size": 64}, "for scale 4, not 2"),
        ({"split": "validation"}, "unknown split 'validation'.*train, test, all"),
        ({"reward": "psnr"}, "reward 'psnr' is no mapping.*'psnr': 1"),
        ({"reward": ["psnr"]}, r"reward \['psnr'\] is no mapping"),
        ({"reward": None}, "reward None is no mapping"),
        ({"reward": {"consistency": 1}}, "judges no picture.*beside 'consistency'"),
        ({"reward": {"psnr": 1, "consistency": True}}, "'consistency' must be a positive number up to 1e.06, not True"),
        ({"reward": {"psnr": 1e300}}, "'psnr' must be a positive number up to 1e.06, not 1e.300"),
        ({"reward": {"psnr": "1"}}, "'psnr' must be a positive number.*not '1'"),
        ({"info_metrics": "lpips"}, r"info_metrics 'lpips' is no list of names: give such as \['lpips'\]"),
        ({"info_metrics": None}, "info_metrics None is no list"),
        ({"info_images": "yes"}, "info_images 'yes' is neither True nor False"),
        ({"device": None}, "device None is no device: give 'auto'"),
        ({"widths": 2.0}, "kernel widths 2.0 are not a range"),
        ({"widths": "ab"}, "kernel widths 'ab' are not a range"),
        ({"widths": (1,)}, r"kernel widths \(1,\) are not a range"),
        ({"widths": (0.2, 50)}, r"kernel widths \(0.2, 50\) are not a range.*high < 21"),
        ({"correction": "a"}, r"correction 'a' is no number in \(0, 2\]"),
        ({"memory_budget": "2G"}, "memory_budget '2G' is not a whole number"),
        ({"memory_budget": -1}, "memory_budget -1 is negative"),
        ({"renderer": 3}, "renderer 3 cannot be loaded: give a name, the path of a checkpoint, a torch module"),
        ({"predictor": 3}, "predictor 3 cannot be loaded: give a name, the path of a checkpoint"),
        ({"scale": 4.0}, "scale 4.0 is not a whole number"),
        ({"scale": True}, "scale True is not a whole number"),
        ({"photos": ""}, "photos '' names no folder"),
        ({"photos": None}, "photos None names no folder: give 'bundled'"),
        ({"device": "cpu:3"}, "device 'cpu:3': there is one cpu device, which has no number"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        make(settings, **changes)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("photos", ["bundled", "folder"])
def test_a_split_is_checked_whatever_the_photos(settings: dict[str, Any], photos: str, photo_folder: Path) -> None:
    source = str(photo_folder) if photos == "folder" else photos
    with pytest.raises(UsageError, match="unknown split 'nope'"):
        make(settings, photos=source, split="nope")


def test_an_unknown_setting_is_a_type_error_that_lists_all(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'photoz': choose one of photos, .*correction"):
        make(settings, photoz="x")


def test_numbers_of_numpy_are_taken_as_pythons(settings: dict[str, Any]) -> None:
    simulator = make(settings, scale=np.int64(4), patch_size=np.int32(64), widths=np.array([1.0, 1.5]))
    assert (type(simulator.settings.scale), type(simulator.settings.patch_size)) == (int, int)
    simulator.reset(np.random.default_rng(0).random((4, 6)))
    assert ((simulator.info()["kernel_width"] >= 1.0) & (simulator.info()["kernel_width"] <= 1.5)).all()


def test_a_range_of_widths_out_of_json_is_a_pair() -> None:
    assert SimulatorSettings.from_kwargs({"widths": [0.5, 2]}).widths == (0.5, 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "the score psnr, above the bicubic enlargement's"),
        (
            {"reward": {"psnr": 1, "lpips": 20.0}, "reference": "predictor"},
            "the score psnr + 20 lpips, above the pretrained predictor's",
        ),
        ({"reward": {"dists": 0.5}, "reference": "none"}, "the score 0.5 dists, by itself"),
    ],
)
def test_the_reward_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert SimulatorSettings(**changes).reward_sentence == sentence


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"photos": "/no/such/folder"}, "/no/such/folder"), ({"renderer": "amnet_xl_x4"}, "amnet_xl_x4.*amnet_l_x4")],
)
def test_missing_files_are_named(settings: dict[str, Any], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(FileNotFoundError, match=told):
        make(settings, **changes)


@pytest.mark.parametrize("weight", [0, -1, float("inf"), float("nan")])
def test_a_wrong_weight_of_consistency_is_named(settings: dict[str, Any], weight: float) -> None:
    with pytest.raises(ValueError, match="'consistency' must be a positive number"):
        make(settings, reward={"psnr": 1, "consistency": weight})
