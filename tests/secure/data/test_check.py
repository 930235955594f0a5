"""The data check collects everything and raises nothing."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fedbcs_secure.data.check import check
from fedbcs_secure.sections import DataContract

SMALL = DataContract(size_px=16)


def picture(path: Path, seed: int, shape: tuple[int, ...] = (16, 16)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def square(path: Path, value: int = 255, shape: tuple[int, int] = (16, 16)) -> None:
    label = np.zeros(shape, np.uint8)
    label[:4, :4] = value
    Image.fromarray(label).save(path)


def site(folder: Path, count: int = 10) -> list[str]:
    """One site's rows, clean: 8 train, 2 test."""
    rows = []
    for i in range(count):
        picture(folder / f"i{i}.png", i, (16, 24, 3) if i % 2 else (16, 24))
        square(folder / f"l{i}.png", shape=(16, 24))
        rows.append(f"A,P{i},i{i}.png,l{i}.png,{'train' if i < 8 else 'test'}")
    return rows


def write(folder: Path, rows: list[str]) -> str:
    text = "\n".join(["site,patient,image,label,split", *rows])
    (folder / "manifest.csv").write_text(text + "\n")
    return str(folder)


def test_a_clean_source(tmp_path: Path) -> None:
    seen: list[int] = []
    report = check(
        write(tmp_path, site(tmp_path)), SMALL, progress=lambda done, _: seen.append(done)
    )
    assert report.ok
    assert (report.kind, report.problems, report.warnings) == ("manifest", (), ())
    (only,) = report.sites
    assert only.patients == {"train": 7, "validation": 1, "test": 2}
    assert only.slices == only.patients
    assert only.sizes == {"16 x 24 x 1": 5, "16 x 24 x 3": 5}
    assert only.class_shares == pytest.approx((1 - 16 / 384, 16 / 384))
    assert only.spacing_mm is None
    assert seen == list(range(1, 11))


def test_problems_are_collected_and_the_rest_is_counted(tmp_path: Path) -> None:
    rows = site(tmp_path)
    (tmp_path / "i0.png").unlink()
    (tmp_path / "l1.png").write_bytes((tmp_path / "l1.png").read_bytes()[:40])
    rows.append("A,P8,i77.png,l8.png,train")
    report = check(write(tmp_path, rows), SMALL)
    assert not report.ok
    assert [p for p in report.problems if "patient P0" in p and "i0.png: missing" in p]
    assert [p for p in report.problems if "patient P1" in p and "l1.png: unreadable" in p]
    assert [p for p in report.problems if "patient P8: in splits test and train" in p]
    assert sum(report.sites[0].sizes.values()) == 8


@pytest.mark.parametrize("source", ["/nowhere/at/all", "EMPTY", "BROKEN"])
def test_a_source_that_cannot_be_listed_is_a_report_too(tmp_path: Path, source: str) -> None:
    if source == "BROKEN":
        (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe\x00nonsense")
    report = check(source if source[0] == "/" else str(tmp_path), SMALL)
    assert not report.ok
    assert report.sites == ()
    assert len(report.problems) >= 1


class TestWarnings:
    def only(self, folder: Path, rows: list[str], contract: DataContract = SMALL) -> str:
        report = check(write(folder, rows), contract)
        assert report.ok, report.problems
        assert len(report.warnings) == 1, report.warnings
        return report.warnings[0]

    def test_empty_labels(self, tmp_path: Path) -> None:
        rows = site(tmp_path)
        square(tmp_path / "l3.png", 0, (16, 24))
        assert "without any labelled pixel: P3" in self.only(tmp_path, rows)

    def test_a_class_that_never_appears(self, tmp_path: Path) -> None:
        rows = site(tmp_path)
        contract = DataContract(size_px=16, classes=3, labels=(0, 255, 7))
        assert "site A: class 2 is in no label" in self.only(tmp_path, rows, contract)

    def test_constant_images_are_no_duplicates(self, tmp_path: Path) -> None:
        rows = site(tmp_path)
        for i in (2, 4):
            Image.fromarray(np.full((16, 24), 9, np.uint8)).save(tmp_path / f"i{i}.png")
        assert "images of a single value" in self.only(tmp_path, rows)

    def test_a_leak_across_splits(self, tmp_path: Path) -> None:
        rows = site(tmp_path)
        (tmp_path / "i9.png").write_bytes((tmp_path / "i1.png").read_bytes())
        text = self.only(tmp_path, rows)
        assert text.startswith("leak: the same image in test and ")
        assert "i1.png (site A, P1)" in text
        assert "i9.png (site A, P9)" in text

    def test_content_counts_not_encoding(self, tmp_path: Path) -> None:
        rows = [row.replace("i8.png", "i8.tif") for row in site(tmp_path)]
        Image.open(tmp_path / "i9.png").save(tmp_path / "i8.tif", compression="tiff_lzw")
        assert "the same image for 2 patients" in self.only(tmp_path, rows)

    def test_twice_within_a_patient(self, tmp_path: Path) -> None:
        rows = site(tmp_path)
        picture(tmp_path / "again.png", 0, (16, 24))
        square(tmp_path / "lagain.png", shape=(16, 24))
        rows.append("A,P0,again.png,lagain.png,train")
        assert "several times for one patient" in self.only(tmp_path, rows)

    def test_a_label_in_jpeg(self, tmp_path: Path) -> None:
        rows = [row.replace("l5.png", "l5.jpg") for row in site(tmp_path)]
        Image.open(tmp_path / "l5.png").save(tmp_path / "l5.jpg")
        assert "lossy JPEG" in self.only(tmp_path, rows)

    def test_one_label_for_two_images(self, tmp_path: Path) -> None:
        rows = [row.replace("l5.png", "l4.png") for row in site(tmp_path)]
        assert "labels used for several images" in self.only(tmp_path, rows)

    def test_affine_and_spacing(self, tmp_path: Path) -> None:
        rows = []
        for i in range(4):
            voxels = np.random.default_rng(i).integers(0, 99, (16, 16, 2)).astype(np.int16)
            label = (voxels > 50).astype(np.uint8)
            affine = np.diag([0.5 + 0.1 * i, 0.5, 3, 1])
            nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"v{i}.nii")
            nib.save(
                nib.Nifti1Image(label, np.eye(4) if i == 3 else affine), tmp_path / f"m{i}.nii"
            )
            rows.append(f"A,P{max(i, 1)},v{i}.nii,m{i}.nii,{'train' if i < 3 else 'test'}")
        report = check(write(tmp_path, rows), SMALL)
        assert report.ok
        spacing_mm = report.sites[0].spacing_mm
        assert spacing_mm is not None
        np.testing.assert_allclose(spacing_mm, ((0.5, 0.5), (0.5, 0.8)), rtol=1e-6)
        affine, spacing = report.warnings
        assert "affine differs" in affine
        assert "m3.nii" in affine
        assert "differ in pixel spacing" in spacing
        assert spacing.endswith(": P1")


def test_synthetic() -> None:
    report = check("synthetic-mri", DataContract(size_px=32), patients=3, slices=2)
    assert report.ok
    assert [s.site for s in report.sites] == ["A", "B", "C", "D"]
    assert sum(report.sites[0].patients.values()) == 3
    assert report.sites[0].sizes == {"32 x 32 x 3": 6}
    assert 0 < report.sites[0].class_shares[1] < 1


@pytest.mark.skipif(not os.environ.get("FEDBCS_REAL_DATA"), reason="FEDBCS_REAL_DATA is not set")
def test_real_nuclei_are_clean() -> None:
    report = check(os.environ["FEDBCS_REAL_DATA"], DataContract())
    assert report.ok
    assert report.warnings == ()
    assert [sum(s.patients.values()) for s in report.sites] == [80, 55, 55, 70]
