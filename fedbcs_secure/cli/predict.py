"""``predict``: masks for images that nobody labelled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from fedbcs_secure.cli import options as o
from fedbcs_secure.cli.session import make_folder
from fedbcs_secure.errors import DataError

if TYPE_CHECKING:
    from fedbcs_secure.data.images import LoadedImage

EPILOG = """
[bold]Examples[/]

fedbcs-secure predict --model model.safetensors --input slide.png --out masks/

fedbcs-secure predict --model model.safetensors --input scans/ --out masks/ --overlays
"""

_SUFFIXES = (".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".tif", ".tiff")


def predict(
    model: Annotated[Path, typer.Option(metavar="FILE", help="model.safetensors of a run.")],
    source: Annotated[
        Path,
        typer.Option("--input", metavar="PATH", help="An image, a NIfTI volume, or a folder."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where masks go.")] = Path("masks"),
    overlays: Annotated[
        bool, typer.Option("--overlays", help="Also write PNGs with the outline drawn in.")
    ] = False,
    as_site: Annotated[
        str, typer.Option(metavar="SITE", help="For method local: whose model to use.")
    ] = "",
    device: Annotated[o.Device, typer.Option()] = o.Device.auto,
    force: Annotated[bool, typer.Option("--force", help="Overwrite masks that exist.")] = False,
) -> None:
    """Segment images; each mask has the size, the spacing and the orientation of its image.

    A folder is searched with its sub-folders, which appear under --out as well. An unreadable
    file is reported at the end (exit code 1) and does not stop the others.
    """
    from fedbcs_secure.data.images import load_image, restore_mask, save_mask
    from fedbcs_secure.learning.learner import Learner
    from fedbcs_secure.learning.modelfile import load_model

    make_folder(out)
    file = load_model(model)
    weights = file.for_site(as_site)
    learner = Learner(file.study, device.value)
    contract = file.study.data
    targets = list(_targets(source, out))
    existing = [str(mask) for _, mask in targets if mask.exists()]
    if existing and not force:
        raise DataError(
            f"{len(existing)} mask(s) exist already, {existing[0]} first; "
            "say --force or choose another --out"
        )
    problems: list[str] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("segmenting", total=len(targets))
        for image_path, mask_path in targets:
            try:
                loaded = load_image(image_path, contract)
                masks = learner.predict(weights, loaded.images)
                mask_path.parent.mkdir(parents=True, exist_ok=True)
                save_mask(loaded, restore_mask(loaded, masks, contract), mask_path)
                if overlays:
                    _save_overlay(loaded, masks, mask_path, contract.volume == "stack3")
            except DataError as error:
                problems += error.problems
            progress.advance(task)
    sys.stdout.write(f"{len(targets) - len(problems)} of {len(targets)} masks in {out}\n")
    if problems:
        raise DataError(problems)


def _targets(source: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    if source.is_file():
        yield source, out / _mask_name(source)
        return
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    inside = out.resolve()
    found = sorted(
        p
        for p in source.rglob("*")
        if p.is_file() and p.name.lower().endswith(_SUFFIXES) and inside not in p.resolve().parents
    )
    if inside == source.resolve():
        raise DataError(f"--out is the input folder {source}; choose another")
    if not found:
        raise DataError(f"{source}: no image in it; expected one of {', '.join(_SUFFIXES)}")
    names: dict[Path, Path] = {}
    for path in found:
        mask = out / path.parent.relative_to(source) / _mask_name(path)
        if mask in names:
            raise DataError(f"{path} and {names[mask]} would both write {mask}; rename one")
        names[mask] = path
        yield path, mask


def _mask_name(path: Path) -> str:
    """``scan.nii.gz`` gives ``scan_mask.nii.gz``; JPEG gives PNG, since it would blur labels."""
    lower = path.name.lower()
    suffix = next((s for s in _SUFFIXES if lower.endswith(s)), path.suffix)
    stem = path.name[: len(path.name) - len(suffix)]
    return f"{stem}_mask{'.png' if suffix in ('.jpg', '.jpeg') else suffix}"


def _save_overlay(loaded: LoadedImage, masks: object, mask_path: Path, stacked: bool) -> None:
    import numpy as np

    from fedbcs_secure.data.pictures import save_overlay

    array = np.asarray(masks)
    largest = int((array > 0).sum(axis=(1, 2)).argmax())
    # The whole file name, so that x.png and x.nii.gz do not share a picture.
    save_overlay(
        mask_path.with_name(f"{loaded.path.name}_overlay.png"),
        loaded.images[largest],
        None,
        array[largest],
        stacked=stacked,
    )
