"""The command: what comes in goes out larger with everything it carried, and nothing that goes wrong leaves a trace."""

from __future__ import annotations

import io
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from rich.console import Console

from sr_env.cli import upscale
from sr_env.models import load_predictor, load_renderer, save_checkpoint
from sr_env.photos import (
    FORMATS,
    MAX_PIXELS,
    Picture,
    list_pages,
    read_picture,
    read_stamp,
    suited,
    write_pages,
    write_picture,
)
from sr_env.upscale import Upscaler

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def smooth(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    """A picture of gentle slopes, which lossy formats keep."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x / width, y / height, (x + y) / (height + width), 0.3 + 0.7 * x / width][:channels]
    return (np.stack(planes, 2) * np.iinfo(dtype).max).astype(dtype)


def exif_block() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Copyright] = "somebody"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight] = 36, 24
    details[ExifTags.Base.ExposureTime] = 0.25
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif


@pytest.mark.parametrize(
    ("suffix", "deep"),
    [(".png", False), (".png", True), (".jpg", False), (".webp", False), (".tif", False), (".tif", True)],
)
def test_exif_and_profile_stay(tmp_path: Path, run: Any, suffix: str, deep: bool) -> None:
    source = tmp_path / f"a{suffix}"
    pixels = smooth(24, 36, 3, np.uint16 if deep else np.uint8)
    if deep or suffix == ".tif":  # ours writes what it is given
        write_picture(source, Picture(pixels, SRGB, exif_block().tobytes()))
    else:
        Image.fromarray(pixels).save(source, exif=exif_block(), icc_profile=SRGB)
    (record,) = run(source)
    assert record.status == "done"
    assert record.size == (96, 144)  # turned upright
    with Image.open(record.output) as image:
        assert image.info["icc_profile"] == SRGB
        image.load()
        exif = image.getexif()
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        assert exif[ExifTags.Base.Make] == "Maker"
        assert exif[ExifTags.Base.Copyright] == "somebody"
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert float(details[ExifTags.Base.ExposureTime]) == 0.25
        assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (96, 144)
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert image.size == (96, 144)
    result = read_picture(record.output)
    assert result.pixels.dtype == pixels.dtype
    # The right way up: red grew to the right, which a quarter turn clockwise makes downwards.
    red = result.pixels[:, :, 0].astype(float)
    assert red[-20:].mean() > red[:20].mean() + 0.3 * np.iinfo(pixels.dtype).max


@pytest.mark.parametrize(
    ("suffix", "mode", "expected"),
    [
        *((".png", mode, mode) for mode in ("L", "LA", "RGB", "RGBA")),
        *((".tif", mode, mode) for mode in ("L", "LA", "RGB", "RGBA")),
        *((".png", mode, after) for mode, after in (("P", "RGB"), ("1", "L"))),
        (".jpg", "L", "L"),
        (".jpg", "CMYK", "RGB"),
        (".webp", "RGBA", "RGBA"),
        (".bmp", "RGB", "RGB"),
        (".gif", "P", "RGB"),
    ],
)
def test_modes_stay(tmp_path: Path, run: Any, photo: np.ndarray, suffix: str, mode: str, expected: str) -> None:
    image = Image.fromarray(photo).convert("RGBA" if "A" in mode else "RGB")
    if "A" in mode:
        image.putalpha(Image.fromarray(smooth(24, 36, 1)[:, :, 0]))
    image.convert(mode).save(tmp_path / f"a{suffix}")
    (record,) = run(tmp_path / f"a{suffix}")
    with Image.open(record.output) as result:
        assert (result.mode, result.size) == (expected, (144, 96))
        assert Path(record.output).suffix == (".png" if suffix in (".bmp", ".gif") else suffix)


@pytest.mark.parametrize("deep", [False, True])
def test_all_pages_of_a_tiff(tmp_path: Path, run: Any, settings: Any, deep: bool) -> None:
    dtype = np.uint16 if deep else np.uint8
    shapes = ((24, 36, 3), (40, 20, 4), (16, 16, 1))
    stack = [smooth(height, width, channels, dtype) for height, width, channels in shapes]
    stack[2] = stack[2][:, :, 0]
    write_pages(tmp_path / "a.tif", [Picture(pixels, SRGB if pixels.ndim == 3 else None) for pixels in stack])
    (record,) = run(tmp_path / "a.tif")
    assert (record.status, record.pages, record.size, record.notes) == ("done", 3, (144, 96), ())
    assert record.kernel_widths is not None
    assert len(record.kernel_widths) == 3
    up = Upscaler(settings().model, predictor=settings().predictor, device="cpu", precision="fp32")
    assert list_pages(record.output) == (0, 1, 2)
    for number, pixels in enumerate(stack):
        page = read_picture(record.output, number)
        np.testing.assert_array_equal(page.pixels, up(pixels))
        assert page.icc == (SRGB if pixels.ndim == 3 else None)
    (first,) = run(tmp_path / "a.tif", format="png", out=tmp_path / "png")
    assert "of its 3 pages the first was taken" in first.notes
    assert [record.status for record in run(tmp_path / "a.tif", resume=True)] == ["skipped"]
    write_picture(tmp_path / "out" / "a.tif", read_picture(record.output, 0))  # as earlier versions left it
    assert [record.status for record in run(tmp_path / "a.tif", resume=True)] == ["done"]


def test_a_damaged_page_is_named(tmp_path: Path, run: Any) -> None:
    write_pages(tmp_path / "a.tif", [Picture(smooth(24, 36, 3)), Picture(smooth(24, 36, 3)[::-1])])
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-300] + b"\xff" * 300)
    (record,) = run(tmp_path / "a.tif")
    assert record.status == "failed"
    assert record.reason is not None
    assert "a.tif" in record.reason
    assert files(tmp_path / "out") == {}


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_frames_that_are_left_out_are_said(tmp_path: Path, run: Any, photo: np.ndarray, suffix: str) -> None:
    frames = [Image.fromarray(photo), Image.fromarray(255 - photo)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], duration=50, lossless=True)
    (record,) = run(tmp_path / f"a{suffix}")
    assert record.notes == ("of its 2 frames the first was taken",)
    Image.fromarray(photo).save(tmp_path / f"b{suffix}", lossless=True)
    (alone,) = run(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(read_picture(record.output).pixels, read_picture(alone.output).pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_metadata_stays(tmp_path: Path, run: Any, suffix: str) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description exif:PixelXDimension="36" dc:rights="me"/></x:xmpmeta>'
    text = (("Comment", "a note"),)
    whole = Picture(smooth(24, 36, 3), xmp=xmp, iptc=b"\x1c\x02\x78\x00\x02ab", text=text, dpi=(300.0, 300.0))
    write_picture(tmp_path / f"a{suffix}", suited(whole, suffix))
    (record,) = run(tmp_path / f"a{suffix}")
    before, after = read_picture(tmp_path / f"a{suffix}"), read_picture(record.output)
    assert after.xmp == xmp.replace(b'"36"', b'"144"')
    assert (after.iptc, after.text) == (before.iptc, before.text)
    assert (before.iptc is None) == (suffix == ".webp")
    assert after.dpi == (pytest.approx(before.dpi) if before.dpi else None)
    assert read_stamp(record.output).startswith("blindsr: tiny_renderer.safetensors (")
    assert str(tmp_path) not in read_stamp(record.output)


def test_what_a_format_cannot_hold_is_said(tmp_path: Path, run: Any) -> None:
    write_picture(tmp_path / "a.png", Picture(smooth(16, 20, 4, np.uint16), SRGB))
    for name, mode in (("jpg", "RGB"), ("webp", "RGBA")):
        (record,) = run(tmp_path / "a.png", format=name, out=tmp_path / name)
        assert f"{FORMATS[f'.{name}']} has 8 bits, 16 were rounded" in record.notes
        assert any("no transparency" in note for note in record.notes) == (name == "jpg")
        with Image.open(record.output) as image:
            assert image.mode == mode


def test_damaged_profile_and_exif_are_left_out(tmp_path: Path, run: Any, photo: np.ndarray) -> None:
    Image.fromarray(photo).save(tmp_path / "a.jpg", icc_profile=SRGB[:200], exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    (record,) = run(tmp_path / "a.jpg")
    assert record.status == "done"
    assert "icc_profile" not in Image.open(record.output).info
    assert any("colour profile" in note for note in record.notes)


def test_a_picture_that_is_no_picture_is_not_written(
    tmp_path: Path, run: Any, photo: np.ndarray, tiny_renderer: Path
) -> None:
    """Weights that are finite, and of which numbers come that are not: once a black picture and exit status 0."""
    Image.fromarray(photo).save(tmp_path / "a.png")
    wild = load_renderer(tiny_renderer)
    with torch.no_grad():
        wild.network.tail.weight *= 1e38
    model = save_checkpoint(tmp_path / "wild.safetensors", wild.network, wild.basis, 4, {})
    (record,) = run(tmp_path / "a.png", model=str(model))
    assert record.status == "failed"
    assert "makes numbers of this picture that are not finite" in record.reason
    assert not Path(record.output).exists()


def test_an_actor_of_another_renderer_is_warned_of(
    tmp_path: Path, settings: Any, photo: np.ndarray, tiny_renderer: Path, tiny_predictor: Path
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    start, renderer = load_predictor(tiny_predictor), load_renderer(tiny_renderer)
    digest = renderer.card["digest"]

    def told(**card: Any) -> str:
        path = save_checkpoint(tmp_path / "actor.safetensors", start.network, start.basis, 4, card)
        console = Console(record=True, file=io.StringIO(), width=500)
        chosen = settings(tmp_path / "a.png", predictor=str(path), force=True)
        assert [record.status for record in upscale.upscale(chosen, console)] == ["done"]
        return console.export_text()

    reward = {"reward": {"psnr": 1.0}}
    assert (
        "warning: predictor 'actor' was trained by reward for renderer 'amgan_x4', and 'tiny_renderer' renders: take "
        "that renderer, or an actor trained for this one"
    ) in told(renderer="amgan_x4", **reward)
    assert "and another one of that name renders" in told(renderer="tiny_renderer", renderer_digest="0" * 16, **reward)
    assert "warning" not in told(renderer="tiny_renderer", **reward)
    assert "warning" not in told(renderer="renamed", renderer_digest=digest, **reward)
    assert "warning" not in told(renderer="amgan_x4")  # pretrained on kernels: for every renderer


def test_the_result_is_the_upscalers(tmp_path: Path, run: Any, settings: Any, photo: np.ndarray) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    (record,) = run(tmp_path / "a.png", out=tmp_path / "larger.png")
    want = Upscaler(settings().model, predictor=settings().predictor, device="cpu", precision="fp32").upscale(photo)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "larger.png")), want.pixels)
    assert record.kernel_code == pytest.approx(want.codes[0].tolist(), abs=1e-4)
    assert record.kernel_width == pytest.approx(float(want.widths[0]))


def test_kernels_of_the_command_line(tmp_path: Path, run: Any, photo: np.ndarray) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    np.save(tmp_path / "kernel.npy", np.pad(np.ones((3, 3)), 9))
    given = {"kernel_width": 2.0}, {"kernel_file": tmp_path / "kernel.npy"}
    results = [
        run(tmp_path / "a.png", predictor=None, out=tmp_path / str(number), **options)[0]
        for number, options in enumerate(given)
    ]
    assert results[0].kernel_width == 2.0
    assert results[1].kernel_width == pytest.approx(0.83, abs=0.15)  # the box of three has variance 2/3
    (tmp_path / "kernel.npy").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"kernel\.npy' is no \.npy file"):
        run(tmp_path / "a.png", predictor=None, kernel_file=tmp_path / "kernel.npy")
    assert not (tmp_path / "out").exists()


def test_one_corrupt_among_good(folder: Path, tmp_path: Path, settings: Any, capsys: Any) -> None:
    (folder / "aa.png").write_bytes((folder / "a.png").read_bytes()[:300])
    (folder / "ab.jpg").write_text("no picture")
    report = tmp_path / "report.json"
    with pytest.raises(SystemExit) as ended:
        upscale.main(settings(folder, json=report))
    assert ended.value.code == 1
    assert set(files(tmp_path / "out")) == {"a.png", "b.jpg", "sub/c.webp"}
    last = capsys.readouterr().err.strip().splitlines()[-3:]
    assert last[0] == "3 done, 2 failed"
    assert "aa.png" in last[1]
    assert "ab.jpg" in last[2]
    told = json.loads(report.read_text())
    assert [record["status"] for record in told["files"]] == ["done", "failed", "failed", "done", "done"]
    assert "not a picture" in told["files"][2]["reason"]


def test_report(tmp_path: Path, run: Any, random_photos: list[np.ndarray]) -> None:
    Image.fromarray(random_photos[0]).save(tmp_path / "a.png")
    Image.fromarray(random_photos[0][:50, :50]).save(tmp_path / "small.png")
    (large, small) = run(tmp_path / "*.png", json=tmp_path / "r.json", spatially_varying=True)
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["scale"] == 4
    assert told["files"][0]["output"] == large.output
    assert len(told["files"][0]["kernel_code"]) == 10
    assert len(told["files"][0]["kernel_widths"]) == large.tiles == 2
    assert large.seconds is not None
    assert large.seconds > 0
    assert large.niqe_before is not None
    assert large.niqe_after is not None
    assert (small.niqe_before, small.niqe_after) == (None, None)


def test_texture(tmp_path: Path, run: Any, photo: np.ndarray, textures: tuple[Path, Path]) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    told = {}
    for texture in (0.0, 0.5, None):
        report = tmp_path / f"{texture}.json"
        model = {"model": None, "texture": texture} if texture is not None else {}
        (record,) = run(tmp_path / "a.png", out=tmp_path / f"{texture}.png", json=report, **model)
        assert record.status == "done"
        told[texture] = json.loads(report.read_text())
    assert [told[texture]["texture"] for texture in told] == [0.0, 0.5, None]
    assert told[0.5]["model"] == "tiny_renderer to tiny_textured"
    pixels = {texture: read_picture(tmp_path / f"{texture}.png").pixels for texture in told}
    np.testing.assert_array_equal(pixels[0.0], pixels[None])  # tiny_renderer's own
    assert (pixels[0.5] != pixels[0.0]).any()
    assert "texture 0.5" in read_stamp(tmp_path / "0.5.png")


def test_bombs_are_refused(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (20000, 10000)).save(tmp_path / "bomb.png")
    Image.new("L", (60, 40)).save(tmp_path / "good.png")
    bomb, good = run(tmp_path / "*.png")
    assert (bomb.status, good.status) == ("failed", "done")
    assert f"over the limit of {MAX_PIXELS // 10**6} megapixels" in bomb.reason


def test_memory_limit_is_named(folder: Path, run: Any) -> None:
    record = run(folder / "a.png", max_memory=0.4)[0]
    assert record.status == "failed"
    assert "over the limit of 0.4 GB: raise --max-memory" in record.reason


def damaged(good: dict[str, bytes], number: int, seed: int) -> dict[str, bytes]:
    """Copies of sound files with bytes changed, cut off, repeated or inserted."""
    rng = np.random.default_rng(seed)
    result = {}
    for index in range(number):
        name = list(good)[index % len(good)]
        data = bytearray(good[name])
        way = rng.integers(4)
        at = int(rng.integers(len(data)))
        if way == 0:
            for place in rng.integers(0, len(data), 1 + rng.integers(12)):
                data[place] = rng.integers(256)
        elif way == 1:
            del data[at:]
        elif way == 2:  # headers are where decoders are led astray
            data[int(rng.integers(min(len(data), 120)))] = rng.integers(256)
        else:
            data[at:at] = rng.bytes(int(rng.integers(1, 40)))
        result[f"{index:03d}{Path(name).suffix}"] = bytes(data)
    return result


def fuzz(folder: Path, out: Path, number: int, seed: int, run: Any) -> list[upscale.Record]:
    """Damaged pictures among a sound one: the sound one is done, no output is partial, and nothing else happens."""
    kinds: dict[str, bytes] = {}
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        path = scratch / f"a{suffix}"
        Image.fromarray(smooth(20, 28, 3)).save(path, icc_profile=SRGB, exif=exif_block())
        kinds[path.name] = path.read_bytes()
        if suffix in (".png", ".tif"):
            write_picture(path, Picture(smooth(20, 28, 4, np.uint16), SRGB, exif_block().tobytes()))
            kinds[f"deep{suffix}"] = path.read_bytes()
        path.unlink()
    scratch.rmdir()
    for name, data in damaged(kinds, number, seed).items():
        (folder / name).write_bytes(data)
    (folder / "zzz.png").write_bytes(kinds["a.png"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said that the report does not say
        records: list[upscale.Record] = run(folder, out=out)
    assert len(records) == number + 1
    assert records[-1].status == "done"
    assert {str(Path(r.output).relative_to(out)) for r in records if r.status == "done"} == set(files(out))
    for record in records:
        if record.status == "done":
            assert record.size is not None
            read_picture(record.output)
        else:
            assert record.reason
            assert "\n" not in record.reason
            assert record.reason.count(record.input) == 1
    return records


def test_fuzz(tmp_path: Path, run: Any) -> None:
    """BLINDSR_FUZZ=500 takes a larger sample."""
    number = int(os.environ.get("BLINDSR_FUZZ", "60"))
    records = fuzz(tmp_path / "damaged", tmp_path / "out", number, 0, run)
    count = sum(record.status == "failed" for record in records)
    assert 0.2 * number < count < 0.9 * number  # some damage is fatal and some is not
