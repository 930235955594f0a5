"""The paper's two folder layouts, as small fake trees."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fedbcs_secure.data.layouts import detect_layout, read_nuclei, read_prostate
from fedbcs_secure.data.sources import contract_for, load
from fedbcs_secure.errors import DataError
from fedbcs_secure.sections import DataContract

PROSTATE = DataContract(size_px=32, scaling="percentile99", volume="stack3")


def nuclei(root: Path, sites: tuple[str, ...] = ("CRC", "TNBC")) -> None:
    """Eight train and three val images a site; fold 2 takes the last four as val."""
    for site in sites:
        folder = root / site
        (folder / "5fold").mkdir(parents=True)
        lines = []
        for i in range(11):
            pixels = np.full((20, 20, 3), 10 * i, np.uint8)
            pixels[0, 0] = 255
            Image.fromarray(pixels).save(folder / f"i{i}.png")
            mask = np.zeros((20, 20), np.uint8)
            mask[5:9, 5:9] = 1 + i
            Image.fromarray(mask).save(folder / f"m{i}.png")
            lines.append(f"{site}/i{i}.png {site}/m{i}.png\n")
        (folder / "train.txt").write_text("".join(lines[:8]))
        (folder / "val.txt").write_text("".join(lines[8:]) + "\n")
        (folder / "5fold" / f"{site}_fold2_train.txt").write_text("".join(lines[:7]))
        (folder / "5fold" / f"{site}_fold2_val.txt").write_text("".join(lines[7:]))


def case(
    folder: Path, name: str, label_name: str, labelled: tuple[int, ...] = (0, 2, 3, 5)
) -> None:
    """Six slices of (X, Y) = 32 x 24; label 2 in the ``labelled`` ones."""
    folder.mkdir(parents=True, exist_ok=True)
    voxels = np.arange(32 * 24 * 6, dtype=np.int16).reshape(32, 24, 6)
    label = np.zeros(voxels.shape, np.uint8)
    for k in labelled:
        label[8:16, 6:12, k] = 2
    affine = np.diag([0.6, 0.6, 3, 1])
    nib.save(nib.Nifti1Image(voxels, affine), folder / name)
    nib.save(nib.Nifti1Image(label, affine), folder / label_name)


def prostate(root: Path) -> None:
    for i in range(5):
        case(root / "BIDMC", f"Case0{i}.nii.gz", f"Case0{i}_segmentation.nii.gz")
        case(root / "ISBI_1.5", f"Case1{i}.nii.gz", f"case1{i}_Segmentation.nii.gz")


class TestDetection:
    def test_each_is_recognised(self, tmp_path: Path) -> None:
        nuclei(tmp_path / "n")
        prostate(tmp_path / "p")
        (tmp_path / "o" / "x").mkdir(parents=True)
        assert detect_layout(tmp_path / "n") == "nuclei"
        assert detect_layout(tmp_path / "p") == "prostate"
        assert detect_layout(tmp_path / "o") is None
        assert detect_layout(tmp_path / "none") is None

    def test_the_contract_a_layout_calls_for(self, tmp_path: Path) -> None:
        nuclei(tmp_path / "n")
        prostate(tmp_path / "p")
        assert contract_for(str(tmp_path / "p"), DataContract(size_px=32)) == PROSTATE
        assert contract_for(str(tmp_path / "n"), DataContract()) == DataContract()

    def test_another_contract_is_refused_not_overridden(self, tmp_path: Path) -> None:
        prostate(tmp_path)
        with pytest.raises(DataError) as caught:
            load(str(tmp_path), DataContract(size_px=32))
        assert "expects data.scaling = 'percentile99' (is 'minmax')" in caught.value.problems[0]
        assert "data.volume = 'stack3' (is 'slices')" in caught.value.problems[0]


class TestNuclei:
    def test_val_is_the_test_split_and_validation_is_carved(self, tmp_path: Path) -> None:
        nuclei(tmp_path)
        dataset = load(str(tmp_path), DataContract(size_px=16))
        assert dataset.sites == ("CRC", "TNBC")
        for cohort in dataset.cohorts.values():
            assert [len(cohort.split(s)) for s in ("train", "validation", "test")] == [7, 1, 3]
            assert all(set(np.unique(p.masks)) == {0, 1} for p in cohort.train)

    def test_an_image_is_a_patient_and_the_listing_says_so(self, tmp_path: Path) -> None:
        nuclei(tmp_path)
        listing = read_nuclei(tmp_path)
        assert listing.patients[0].patient_id == "CRC/i0.png"
        assert listing.notes == ("the lists name no patients: each image counts as one patient",)

    def test_a_fold(self, tmp_path: Path) -> None:
        nuclei(tmp_path)
        listing = read_nuclei(tmp_path, fold=2)
        test = [p.patient_id for p in listing.patients if p.split == "test" and p.site == "CRC"]
        assert test == [f"CRC/i{i}.png" for i in range(7, 11)]

    def test_a_fold_that_is_not_there(self, tmp_path: Path) -> None:
        nuclei(tmp_path)
        with pytest.raises(DataError, match=r"CRC_fold3_train\.txt: cannot be read"):
            load(str(tmp_path), DataContract(size_px=16), fold=3)

    def test_no_val_list_serves_where_no_test_is_needed(self, tmp_path: Path) -> None:
        nuclei(tmp_path)
        (tmp_path / "CRC" / "val.txt").unlink()
        with pytest.raises(DataError, match="site CRC: no test patient"):
            load(str(tmp_path), DataContract(size_px=16))
        dataset = load(str(tmp_path), DataContract(size_px=16), require_splits=("train",))
        assert dataset.cohorts["CRC"].test == ()

    def test_wrong_and_repeated_lines(self, tmp_path: Path) -> None:
        nuclei(tmp_path)
        with (tmp_path / "CRC" / "val.txt").open("a") as file:
            file.write("CRC/i0.png CRC/m0.png\nCRC/i9.png CRC/m9.png\nCRC/x.png\n")
        problems = read_nuclei(tmp_path).problems
        assert len(problems) == 3
        assert "val.txt, line 7: expected two paths, image and mask" in problems[0]
        assert "CRC/i0.png is in both train and val (test): expected once" in problems[1]
        assert "CRC/i9.png is listed twice" in problems[2]

    def test_tabs_allow_spaces_in_names(self, tmp_path: Path) -> None:
        (tmp_path / "X").mkdir()
        (tmp_path / "X" / "train.txt").write_text("X/an image.png\tX/a mask.png\n")
        pair = read_nuclei(tmp_path).patients[0].pairs[0]
        assert (pair.image.name, pair.label.name) == ("an image.png", "a mask.png")


class TestProstate:
    def test_samples_are_labelled_inner_slices_with_neighbours(self, tmp_path: Path) -> None:
        prostate(tmp_path)
        dataset = load(str(tmp_path), PROSTATE)
        assert dataset.sites == ("BIDMC", "ISBI_1.5")
        cohort = dataset.cohorts["BIDMC"]
        assert [len(cohort.split(s)) for s in ("train", "validation", "test")] == [3, 1, 1]
        patient = cohort.train[0]
        assert patient.images.shape == (2, 3, 32, 32)  # slices 2 and 3 of 0, 2, 3, 5
        assert patient.masks.max() == 1
        assert patient.masks.any(axis=(1, 2)).all()
        assert patient.spacing_mm == pytest.approx((0.6 * 24 / 32, 0.6))
        assert patient.images.max() == 1
        assert (np.diff(patient.images.mean(axis=(2, 3)), axis=1) > 0).all()
        np.testing.assert_array_equal(patient.images[0, 2], patient.images[1, 1])

    @pytest.mark.parametrize(
        "label",
        [
            "Case03_segmentation.nii.gz",
            "Case03_Segmentation.nii.gz",
            "CASE03_SEGMENTATION.NII.GZ",
            "Case 03 segmentation.nii",
            "case3_seg.nii.gz",
        ],
    )
    def test_names_of_segmentations(self, tmp_path: Path, label: str) -> None:
        case(tmp_path / "UCL", "Case03.nii.gz", label)
        listing = read_prostate(tmp_path)
        assert listing.problems == ()
        assert listing.patients[0].pairs[0].label.name == label

    def test_none_and_several_segmentations(self, tmp_path: Path) -> None:
        case(tmp_path / "HK", "Case01.nii.gz", "Case01_segmentation.nii.gz")
        case(tmp_path / "HK", "Case02.nii.gz", "Case02_segmentation.nii.gz")
        (tmp_path / "HK" / "Case01_segmentation.nii.gz").unlink()
        (tmp_path / "HK" / "Case02_seg.nii.gz").write_bytes(b"")
        problems = read_prostate(tmp_path).problems
        assert len(problems) == 2
        assert "patient Case01" in problems[0]
        assert "none: expected exactly one, such as Case01_segmentation.nii.gz" in problems[0]
        assert "Case02_seg.nii.gz, Case02_segmentation.nii.gz: expected exactly one" in problems[1]

    def test_several_volumes_of_a_case(self, tmp_path: Path) -> None:
        case(tmp_path / "HK", "Case01.nii.gz", "Case01_segmentation.nii.gz")
        case(tmp_path / "HK", "Case01.nii", "Case01_segmentation.nii.gz")
        assert "several volumes (Case01.nii, Case01.nii.gz)" in read_prostate(tmp_path).problems[0]

    def test_a_case_without_usable_slices(self, tmp_path: Path) -> None:
        prostate(tmp_path)
        case(tmp_path / "HK", "Case01.nii.gz", "Case01_segmentation.nii.gz", labelled=(0, 5))
        with pytest.raises(
            DataError, match=r"patient Case01: .* no labelled slice between"
        ) as caught:
            load(str(tmp_path), PROSTATE, require_splits=())
        assert "Case01_segmentation.nii.gz" in str(caught.value)

    def fold(self, root: Path, train: str, val: str) -> None:
        folder = root / "BIDMC" / "5fold"
        folder.mkdir()
        (folder / "BIDMC_fold1_train.txt").write_text(train)
        (folder / "BIDMC_fold1_val.txt").write_text(val)

    def test_folds_list_case_names(self, tmp_path: Path) -> None:
        for i in range(5):
            case(tmp_path / "BIDMC", f"Case0{i}.nii.gz", f"Case0{i}_segmentation.nii.gz")
        self.fold(tmp_path, "Case00\nCase01.nii.gz\n", "BIDMC/Case04.nii.gz\n")
        listing = read_prostate(tmp_path, fold=1)
        assert listing.problems == ()
        splits = {p.patient_id: p.split for p in listing.patients}
        assert splits == {"Case00": "train", "Case01": "train", "Case04": "test"}

    def test_folds_with_unknown_and_shared_cases(self, tmp_path: Path) -> None:
        case(tmp_path / "BIDMC", "Case00.nii.gz", "Case00_segmentation.nii.gz")
        self.fold(tmp_path, "Case00\nCase77\n", "Case00\n")
        problems = read_prostate(tmp_path, fold=1).problems
        assert "fold1_train.txt, line 2: 'Case77': expected the name of a case" in problems[0]
        assert "patient Case00: in both lists of fold 1" in problems[1]
        assert "fold9_train.txt: cannot be read" in read_prostate(tmp_path, fold=9).problems[0]
