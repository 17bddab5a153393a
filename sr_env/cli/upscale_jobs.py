"""Which pictures ``blindsr upscale`` enlarges, and where each result goes: all of it settled before any work."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sr_env.photos import (
    FORMATS,
    OTHER_ENDINGS,
    PICTURE_ENDINGS,
    is_whole,
    list_files,
    list_pages,
    read_shape,
    read_stamp,
)
from sr_env.upscale import Size
from sr_env.utils.checks import FileInTheWayError, MissingFileError, UsageError
from sr_env.utils.files import check_writable


@dataclass(frozen=True)
class Job:
    """A picture and where its enlargement goes."""

    source: Path
    target: Path


@dataclass
class Plan:
    """What is to be done, and what cannot be.

    Attributes:
        jobs: The pictures to enlarge.
        failures: Pictures or folders that cannot be done, each with its target (or an empty name) and the reason.
        left_out: Pictures in the folders of kinds that are not read.
    """

    jobs: list[Job] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def plan_jobs(inputs: Sequence[str], out: Path | None, format: str = "keep", ending: str = "x4") -> Plan:
    """Turn inputs into pictures and the files to write.

    A picture named twice is done once. Pictures under ``out`` are no inputs, nor are results beside their originals, so
    that a result inside a searched folder is not enlarged again. Of two pictures that would write one file the first is
    done, and the other a failure.

    Args:
        inputs: Files, folders and patterns.
        out: Folder, or the file to write where there is one picture and ``out`` ends like a picture. None puts every
            result beside its original: ``photo_x4.jpg``.
        format: ``"keep"`` or a file name ending without its dot.
        ending: Of those names, which says how large results are.

    Raises:
        MissingFileError: An input is not there or a pattern or folder has no picture.
        UsageError: ``out`` is unsuitable, or nothing at all can be done.
    """
    if not inputs:
        raise UsageError("no pictures given: name files, folders or patterns such as 'scans/*.jpg'")
    plan = Plan()
    found: dict[tuple[Path, Path], None] = {}
    outside = None if out is None else out.resolve()
    for given in inputs:
        for source, name in _find(given, plan):
            root = Path(*source.parts[: len(source.parts) - len(name.parts)]).resolve()
            if outside is not None and root in outside.parents and outside in source.resolve().parents:
                continue
            found[source, name] = None
    if not found and not plan.failures:
        raise MissingFileError(f"all pictures of {', '.join(inputs)} lie in --out {str(out)!r}: give another folder")
    single = out is not None and _is_file_name(out, format, {source.resolve() for source, _ in found})
    places = [(source, _target(source, name, out, single, format, ending)) for source, name in found]
    beside = {os.path.abspath(target) for _, target in places} if out is None else set()
    targets: dict[str, Job] = {}
    for source, target in places:
        if os.path.abspath(source) in beside:
            continue
        other = targets.setdefault(os.path.normcase(os.path.abspath(target)), Job(source, target))
        if _same(target, source):
            plan.failures.append((str(source), str(target), "it would overwrite itself: give another --out"))
        elif other.source == source:
            plan.jobs.append(other)
        elif not _same(other.source, source):
            reason = f"it and {str(other.source)!r} would both write {str(target)!r}: rename one, or give another --out"
            plan.failures.append((str(source), str(target), reason))
    if not plan.jobs:
        source_name, _, reason = plan.failures[0]
        raise (FileInTheWayError if "overwrite" in reason else UsageError)(f"{source_name!r}: {reason}")
    return plan


def _target(source: Path, name: Path, out: Path | None, single: bool, format: str, ending: str) -> Path:
    if out is None:
        renamed = _renamed(source, format)
        return renamed.with_name(f"{renamed.stem}_{ending}{renamed.suffix}")
    return out if single else out / _renamed(name, format)


def _is_file_name(out: Path, format: str, sources: set[Path]) -> bool:
    """Whether ``out`` is the file to write, and not a folder; raises where it is neither."""
    suffix = out.suffix.lower()
    single = suffix in FORMATS and not out.is_dir()
    if suffix in (*PICTURE_ENDINGS, *OTHER_ENDINGS) and suffix not in FORMATS and not out.is_dir():
        raise UsageError(f"--out {str(out)!r}: {suffix} cannot be written: end it in {', '.join(FORMATS)}")
    if single and len(sources) > 1:
        raise UsageError(f"--out {str(out)!r} is one file and there are {len(sources)} pictures: give a folder")
    if not single and out.exists() and not out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a file: give a folder, or a name that ends in {', '.join(FORMATS)}")
    if single and format != "keep" and FORMATS[suffix] != FORMATS[f".{format}"]:
        raise UsageError(f"--out {str(out)!r} and --format {format} disagree: leave one out")
    return single


def _same(one: Path, other: Path) -> bool:
    """Whether two names mean one file; a name that means none is only itself."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.abspath(one) == os.path.abspath(other)


def _find(given: str, plan: Plan) -> list[tuple[Path, Path]]:
    """Pictures of an input, and the name of each below the output folder; links to nothing are named when read."""
    path = Path(given)
    if path.is_dir():
        names, unreadable = list_files(path, PICTURE_ENDINGS)
        plan.failures += [(line, "", "the folder cannot be listed: make it readable") for line in unreadable]
        if not names and not unreadable:
            raise MissingFileError(f"no picture in {given!r} or below; looked for are {', '.join(PICTURE_ENDINGS)}")
        plan.left_out += [str(path / name) for name in list_files(path, OTHER_ENDINGS)[0]]
        return [(path / name, Path(name)) for name in names]
    if os.path.lexists(path):
        return [(path, Path(path.name))]
    if glob.has_magic(given):
        plain = [part for part in path.parts if not glob.has_magic(part)]
        count = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
        root = Path(*plain[:count]) if count else Path()
        files = sorted(match for match in glob.glob(given, recursive=True) if not Path(match).is_dir())
        matches = [match for match in files if match.lower().endswith(PICTURE_ENDINGS)]
        if not matches:
            raise MissingFileError(f"no picture matches {given!r}; looked for are {', '.join(PICTURE_ENDINGS)}")
        plan.left_out += [match for match in files if match.lower().endswith(OTHER_ENDINGS)]
        return [(Path(match), Path(match).relative_to(root)) for match in matches]
    raise MissingFileError(f"no file or folder {given!r}: give pictures, folders or patterns")


def _renamed(name: Path, format: str) -> Path:
    if format != "keep":
        return name.with_suffix(f".{format}")
    return name if name.suffix.lower() in FORMATS else name.with_suffix(".png")


def prepare_folders(plan: Plan, out: Path | None) -> None:
    """Make the folders for the results; where one cannot be written, its pictures become failures.

    Raises:
        OSError: None can be written, naming the first.
    """
    refused: dict[Path, OSError] = {}
    folders = sorted({job.target.parent for job in plan.jobs})
    for folder in folders:
        try:
            check_writable(folder)
        except OSError as error:
            if folder == out or len(folders) == 1:
                raise
            refused[folder] = error
    if refused and len(refused) == len(folders):
        raise next(iter(refused.values()))
    lost = [job for job in plan.jobs if job.target.parent in refused]
    plan.jobs = [job for job in plan.jobs if job.target.parent not in refused]
    plan.failures += [(str(job.source), str(job.target), str(refused[job.target.parent])) for job in lost]


def check_outputs(jobs: Sequence[Job], size: Size, maker: str, *, resume: bool, force: bool) -> set[Path]:
    """Sources whose result is there already, which ``resume`` skips.

    A result that cannot be decoded to its end, or lacks pages, is made again. Its size tells another magnification,
    and its EXIF block other models or settings.

    Args:
        jobs: The pictures.
        size: How large results are.
        maker: What results of this run say of how they were made.
        resume: Whether results that are there are kept.
        force: Whether they are overwritten.

    Raises:
        FileInTheWayError: Results are there and neither ``resume`` nor ``force`` was given, or one is not what this
            run would make.
        UsageError: Both were given.
    """
    if resume and force:
        raise UsageError("--resume keeps results and --force overwrites them: give one")
    present = [job for job in jobs if os.path.lexists(job.target)]
    if force or not present:
        return set()
    if not resume:
        raise FileInTheWayError(
            f"{len(present)} of {len(jobs)} results are there already, such as {str(present[0].target)!r}: "
            "--resume skips them, --force overwrites them"
        )
    whole = [job for job in present if is_whole(job.target) and _all_pages(job)]
    for job in whole:
        other = read_stamp(job.target)
        if other not in (None, maker):
            raise FileInTheWayError(
                f"{str(job.target)!r} was made by {other!r}, and this run is {maker!r}: overwrite with --force, give "
                "another --out, or the same settings"
            )
        try:
            (height, width), shape = read_shape(job.source), read_shape(job.target)
            due = size.of(height, width)
        except UsageError:  # over the limit of what is read, or an input that is damaged or too wide by now
            continue
        if shape != due:
            raise FileInTheWayError(
                f"{str(job.target)!r} is {shape[1]}x{shape[0]}, not {due[1]}x{due[0]} as {str(job.source)!r} would "
                "become: overwrite with --force or give another --out"
            )
    return {job.source for job in whole}


def _all_pages(job: Job) -> bool:
    if FORMATS[job.target.suffix.lower()] != "TIFF":
        return True
    try:
        return len(list_pages(job.target)) == len(list_pages(job.source))
    except UsageError:  # as above
        return True
