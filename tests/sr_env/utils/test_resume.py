"""What a state keeps, what a resumed run may change of it, and that a damaged one is known."""

from __future__ import annotations

import errno
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from sr_env.utils.checks import FileInTheWayError, MissingFileError, UsageError
from sr_env.utils.digests import content_digest
from sr_env.utils.resume import check_out, check_settings, kept_settings, read_verified, write_verified


def schedule(left: float) -> float:
    return 1e-3 * left


@dataclass
class Settings:
    out: Path = Path("runs/a")
    start: Path | None = None
    seed: int = 0
    rate: Any = 1e-3
    widths: tuple[float, ...] = (0.2, 1.3)
    reward: dict[str, float] = field(default_factory=lambda: {"psnr": 1.0})
    steps: int = 100


def test_what_is_kept_is_json_and_names_no_machine() -> None:
    kept = kept_settings(Settings(start=Path("/home/somebody/runs/b/amnet.safetensors"), rate=schedule), photos="5")
    assert kept == {
        "start": "b/amnet.safetensors",
        "seed": 0,
        "rate": "schedule",
        "widths": [0.2, 1.3],
        "reward": {"psnr": 1.0},
        "photos": "5",
    }


def test_every_difference_is_named_with_both_values() -> None:
    kept = kept_settings(Settings())
    check_settings(kept, kept_settings(Settings(steps=7, out=Path("elsewhere"))), Path("runs/a"))
    check_settings(kept, kept_settings(Settings(reward={"psnr": 1})), Path("runs/a"))  # 1 and 1.0 are one number
    other = kept_settings(Settings(widths=(0.2,), reward={"lpips": 2.5, "psnr": 1}, start=Path("b.safetensors")))
    with pytest.raises(UsageError) as caught:
        check_settings(kept, other, Path("runs/a"))
    assert str(caught.value) == (
        "cannot resume from runs/a with other settings: --start was None and is b.safetensors; --widths was 0.2 1.3 "
        "and is 0.2; --reward was psnr=1 and is lpips=2.5,psnr=1: give what it began with, or start anew in another "
        "--out"
    )


def test_settings_of_other_versions_are_no_difference() -> None:
    check_settings(None, {"seed": 1}, Path())
    check_settings({"seed": 1, "gone": 2}, {"seed": 1, "new": 3}, Path())


def test_a_run_begins_where_nothing_is_lost_and_goes_on_where_there_is_a_state(tmp_path: Path) -> None:
    check_out(tmp_path / "new", "state.pt", ["actor.safetensors"], resume=False)
    (tmp_path / "curves.png").touch()
    check_out(tmp_path, "state.pt", ["actor.safetensors"], resume=False)
    with pytest.raises(
        MissingFileError, match=r"nothing to resume: .*state\.pt does not exist; start without --resume"
    ):
        check_out(tmp_path, "state.pt", ["actor.safetensors"], resume=True)
    (tmp_path / "actor.safetensors").touch()
    with pytest.raises(FileInTheWayError, match=r"actor\.safetensors of an earlier run exists: choose another --out"):
        check_out(tmp_path, "state.pt", ["actor.safetensors"], resume=False)
    (tmp_path / "state.pt").touch()
    with pytest.raises(FileInTheWayError, match=r"state\.pt exists: add --resume to go on, or choose another --out"):
        check_out(tmp_path, "state.pt", ["actor.safetensors"], resume=False)
    check_out(tmp_path, "state.pt", ["actor.safetensors"], resume=True)


STATE: dict[str, Any] = {
    "weights": {"a": torch.arange(600.0).reshape(20, 30), "b": torch.tensor(2.0, dtype=torch.bfloat16)},
    "empty": torch.zeros(0, 3),
    "history": [(1, [0.5, float("nan")]), (2, [])],
    "generator": {"state": 2**100, "name": "PCG64"},
    "none": None,
}


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_verified(tmp_path / "s.pt", STATE)
    read = read_verified(tmp_path / "s.pt")
    assert content_digest(read) == content_digest(STATE)
    assert torch.equal(read["weights"]["a"], STATE["weights"]["a"])
    assert (read["generator"], read["history"][1]) == (STATE["generator"], (2, []))
    torch.save(STATE, tmp_path / "before.pt")  # one without a digest
    assert content_digest(read_verified(tmp_path / "before.pt")) == content_digest(STATE)


@pytest.mark.parametrize(
    "changed",
    [
        {**STATE, "weights": {**STATE["weights"], "b": torch.tensor(2.0)}},
        {**STATE, "weights": {**STATE["weights"], "a": torch.arange(600.0).reshape(30, 20)}},
        {**STATE, "empty": torch.zeros(3, 0)},
        {**STATE, "history": [(1, [0.5]), (float("nan"), 2, [])]},
        {**STATE, "none": "None"},
        {name: value for name, value in STATE.items() if name != "none"},
    ],
)
def test_a_digest_follows_values_types_and_shapes(changed: dict[str, Any]) -> None:
    assert content_digest(changed) != content_digest(STATE)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    write_verified(tmp_path / "s.pt", STATE)
    content = bytearray((tmp_path / "s.pt").read_bytes())
    content[content.index(STATE["weights"]["a"].numpy().tobytes()) + 1000] ^= 4
    (tmp_path / "s.pt").write_bytes(content)
    assert torch.load(tmp_path / "s.pt", weights_only=True)  # torch says nothing
    with pytest.raises(ValueError, match=r"s\.pt is not what was written"):
        read_verified(tmp_path / "s.pt")


@pytest.mark.parametrize("room", [0, 10, 700, 2000])
def test_a_full_disk_is_one_error_that_names_file_and_disk(tmp_path: Path, room: int) -> None:
    """The system refuses to write on, as it does on a full disk; torch alone would tell of an "unexpected pos"."""
    write_verified(tmp_path / "s.pt", 1)
    before = (tmp_path / "s.pt").read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
        with pytest.raises(
            OSError, match=r"on the disk at '/.*', which has \d+\.\d MB free; what was written"
        ) as caught:
            write_verified(tmp_path / "s.pt", STATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "s.pt"))
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]
    assert (tmp_path / "s.pt").read_bytes() == before
