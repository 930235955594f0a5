"""Loading a source whole, and one error that lists everything wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from fedbcs_secure.data.records import SPLITS, Dataset, Split, pseudonym
from fedbcs_secure.data.sources import contract_for, detect, load
from fedbcs_secure.errors import DataError
from fedbcs_secure.sections import DataContract

SMALL = DataContract(size_px=16)


def picture(path: Path, seed: int, shape: tuple[int, int] = (16, 16)) -> str:
    pixels = np.random.default_rng(seed).integers(0, 255, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.name


def mask(path: Path, shape: tuple[int, int] = (16, 16)) -> str:
    label = np.zeros(shape, np.uint8)
    label[4:8, 4:8] = 255
    Image.fromarray(label).save(path)
    return path.name


def manifest(folder: Path, rows: list[str], header: str = "site,patient,image,label,split") -> str:
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    return str(folder)


def study(folder: Path, patients: int = 10, slices: int = 2) -> list[str]:
    """Rows without split: sites A and B, the same ids at both."""
    rows = []
    for number in range(patients):
        for site in "AB":
            for k in range(slices):
                name = f"{site}{number}_{k}.png"
                image = picture(folder / f"i{name}", seed=len(rows))
                rows.append(f"{site},P{number},{image},{mask(folder / f'l{name}')},")
    return rows


def test_under_privacy_a_patient_that_cannot_be_read_is_left_out_and_told(tmp_path: Path) -> None:
    rows = study(tmp_path)
    broken = tmp_path / "iA3_1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    source, told = manifest(tmp_path, rows), []
    contract = SMALL.model_copy(update={"split": "independent"})
    dataset = load(source, contract, require_splits=("train",), unread=told.append)
    assert len(told) == 1
    assert "site A, patient P3" in told[0]
    without = manifest(tmp_path, [row for row in rows if not row.startswith("A,P3,")])
    other = load(without, contract, require_splits=("train",))
    for site in "AB":
        for split in SPLITS:
            one, two = dataset.cohorts[site].split(split), other.cohorts[site].split(split)
            assert [p.patient for p in one] == [p.patient for p in two]
            assert all(np.array_equal(a.images, b.images) for a, b in zip(one, two, strict=True))
    with pytest.raises(DataError, match="patient P3"):
        load(manifest(tmp_path, rows), SMALL)


def test_where_images_are_the_unit_only_the_image_is_left_out(tmp_path: Path) -> None:
    rows, told = study(tmp_path), []
    (tmp_path / "iA3_1.png").write_bytes(b"")
    contract = SMALL.model_copy(update={"split": "independent"})
    dataset = load(
        manifest(tmp_path, rows), contract, require_splits=(), unread=told.append, by_image=True
    )
    slices = {p.source_id: p.slices for p in dataset.cohorts["A"].test}
    assert len(told) == 1
    assert slices == {f"P{n}": 1 if n == 3 else 2 for n in range(10)}


def test_a_site_with_nobody_left_says_so_before_anything_is_sent(tmp_path: Path) -> None:
    rows = [row + ("test" if ",P1," in row else "train") for row in study(tmp_path, patients=3)]
    for k in range(2):
        (tmp_path / f"iA1_{k}.png").write_bytes(b"")
    with pytest.raises(DataError, match="site A: no test patient"):
        load(manifest(tmp_path, rows), SMALL, unread=lambda _: None)


class TestManifests:
    def test_patients_are_whole_and_pseudonymous(self, tmp_path: Path) -> None:
        dataset = load(manifest(tmp_path, study(tmp_path)), SMALL)
        assert isinstance(dataset, Dataset)
        assert dataset.sites == ("A", "B")
        assert (dataset.classes, dataset.channels) == (2, 3)
        for site, cohort in dataset.cohorts.items():
            assert [len(cohort.split(s)) for s in ("train", "validation", "test")] == [7, 1, 2]
            everyone = [*cohort.train, *cohort.validation, *cohort.test]
            assert {p.patient for p in everyone} == {pseudonym(site, f"P{i}") for i in range(10)}
            assert all(p.images.shape == (2, 3, 16, 16) and p.site == site for p in everyone)

    def test_slices_keep_the_order_of_rows(self, tmp_path: Path) -> None:
        label = mask(tmp_path / "l.png")
        rows = []
        for value in (30, 10, 20):
            Image.fromarray(np.full((16, 16), value, np.uint8)).save(tmp_path / f"{value}.png")
            rows.append(f"A,P,{value}.png,{label},train")
        contract = DataContract(size_px=16, scaling="fixed")
        dataset = load(manifest(tmp_path, rows), contract, require_splits=("train",))
        values = dataset.cohorts["A"].train[0].images[:, 0, 0, 0] * 255
        np.testing.assert_allclose(values, [30, 10, 20], atol=1e-4)

    def test_file_or_folder_and_seed(self, tmp_path: Path) -> None:
        source = manifest(tmp_path, study(tmp_path, slices=1))
        names = [
            [p.patient for p in load(where, SMALL, seed=seed).cohorts["A"].test]
            for where, seed in ((source, 0), (f"{source}/manifest.csv", 0), (source, 5))
        ]
        assert names[0] == names[1] != names[2]

    def test_site_names_a_manifest_without_site_and_filters_one_with(self, tmp_path: Path) -> None:
        rows = study(tmp_path)
        source = manifest(tmp_path, rows)
        assert load(source, SMALL, site="B").sites == ("B",)
        with pytest.raises(DataError, match="no site Z: expected one of A, B"):
            load(source, SMALL, site="Z")
        bare = [row[2:-1] for row in rows if row.startswith("A")]
        source = manifest(tmp_path, bare, "patient,image,label")
        assert load(source, SMALL, site="ward").sites == ("ward",)

    def test_key_changes_the_pseudonyms(self, tmp_path: Path) -> None:
        source = manifest(tmp_path, study(tmp_path, slices=1))
        plain, keyed = load(source, SMALL), load(source, SMALL, key=b"k")
        assert plain.cohorts["A"].train[0].patient != keyed.cohorts["A"].train[0].patient

    def test_progress_counts_patients(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        source = manifest(tmp_path, study(tmp_path, patients=3))
        load(source, SMALL, progress=lambda done, total: seen.append((done, total)))
        assert seen == [(i, 6) for i in range(1, 7)]

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_a_source_of_one_split_serves_evaluation(self, tmp_path: Path, split: Split) -> None:
        rows = [row + split for row in study(tmp_path, slices=1)]
        source = manifest(tmp_path, rows)
        with pytest.raises(DataError, match=r"site A: no (train|test) patient: expected at least"):
            load(source, SMALL)
        cohort = load(source, SMALL, require_splits=(split,)).cohorts["A"]
        assert len(cohort.train) + len(cohort.validation) + len(cohort.test) == 10
        assert len(cohort.test) == (10 if split == "test" else 0)

    def test_too_few_patients_say_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            load(manifest(tmp_path, study(tmp_path, patients=2)), SMALL)
        assert len(caught.value.problems) == 2
        assert "site A: 2 patient(s) for 3 splits" in caught.value.problems[0]

    def test_volumes_with_anisotropic_spacing(self, tmp_path: Path) -> None:
        rows = []
        for i, split in enumerate(("train", "test")):
            for name, dtype in ((f"v{i}.nii.gz", np.int16), (f"m{i}.nii.gz", np.uint8)):
                voxels = np.arange(48 * 32 * 3).reshape(48, 32, 3) % 2
                image = nib.Nifti1Image(voxels.astype(dtype), np.diag([0.5, 0.8, 4, 1]))
                nib.save(image, tmp_path / name)
            rows.append(f"A,P{i},v{i}.nii.gz,m{i}.nii.gz,{split}")
        patient = load(manifest(tmp_path, rows), SMALL).cohorts["A"].train[0]
        assert patient.images.shape == (3, 3, 16, 16)
        assert patient.spacing_mm == pytest.approx((0.8 * 32 / 16, 0.5 * 48 / 16))

    def test_files_of_different_spacing_have_none(self, tmp_path: Path) -> None:
        rows = []
        for i, mm in enumerate((0.5, 0.9)):
            for name in (f"v{i}.nii", f"m{i}.nii"):
                image = nib.Nifti1Image(np.zeros((16, 16, 2), np.uint8), np.diag([mm, mm, 4, 1]))
                nib.save(image, tmp_path / name)
            rows.append(f"A,P,v{i}.nii,m{i}.nii,train")
        dataset = load(manifest(tmp_path, rows), SMALL, require_splits=("train",))
        assert dataset.cohorts["A"].train[0].spacing_mm is None


class TestProblems:
    def test_all_kinds_at_once_each_with_file_and_patient(self, tmp_path: Path) -> None:
        label = mask(tmp_path / "l.png")
        picture(tmp_path / "ok.png", 0)
        picture(tmp_path / "cut.png", 1)
        whole = (tmp_path / "cut.png").read_bytes()
        (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
        nib.save(nib.Nifti1Image(np.ones((16, 16, 9), np.int16), np.eye(4)), tmp_path / "v.nii.gz")
        whole = (tmp_path / "v.nii.gz").read_bytes()
        (tmp_path / "v.nii.gz").write_bytes(whole[: len(whole) // 2])
        picture(tmp_path / "wide.png", 2, (16, 20))
        Image.fromarray(np.full((16, 16), 3, np.uint8)).save(tmp_path / "odd.png")
        picture(tmp_path / "i5.png", 5)
        tifffile.imwrite(tmp_path / "nan.tif", np.full((16, 16), np.nan, np.float32))
        picture(tmp_path / "i8.png", 8)
        rows = [
            f"A,Gone,gone.png,{label},train",
            f"A,Cut,cut.png,{label},train",
            f"A,Volume,v.nii.gz,{label},train",
            f"A,Wide,wide.png,{label},train",
            "A,Odd,i5.png,odd.png,train",
            f"A,Nan,nan.tif,{label},train",
            f"A,Twice,ok.png,{label},train",
            f"A,Other,ok.png,{label},train",
            f"A,Moves,i8.png,{label},train",
            f"A,Moves,i9.png,{label},test",
            f"B,Alone,i8.png/../i10.png,{label},train",
        ]
        contract = DataContract(size_px=16, labels=(0, 255))
        with pytest.raises(DataError) as caught:
            load(manifest(tmp_path, rows), contract)
        expected = [
            ("patient Moves", "in splits test and train"),
            ("patient Other", "ok.png", "listed twice (first for site A, patient Twice)"),
            ("site A", "no test patient"),
            ("site B", "no test patient"),
            ("patient Gone", "gone.png", "missing"),
            ("patient Cut", "cut.png", "unreadable or truncated"),
            ("patient Volume", "v.nii.gz", "unreadable or truncated"),
            ("patient Wide", "wide.png", "1 x 16 x 20", "has 1 x 16 x 16", "expected equal sizes"),
            ("patient Odd", "odd.png", "256 pixel(s)", "(3)", "expected the values 0, 255"),
            ("patient Nan", "nan.tif", "256 NaN or infinite"),
            ("patient Moves", "i9.png", "missing"),
            ("site B, patient Alone", "i10.png", "missing"),
        ]
        problems = caught.value.problems
        for words in expected:
            assert [p for p in problems if all(word in p for word in words)], words
        assert len(problems) == len(expected), problems

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("synthetic-ct", "no such file or folder: expected a manifest CSV"),
            ("EMPTY", "a folder of unknown layout: expected manifest.csv in it, or sub-folders"),
        ],
    )
    def test_unknown_sources(self, tmp_path: Path, source: str, words: str) -> None:
        with pytest.raises(DataError, match=words):
            load(source.replace("EMPTY", str(tmp_path)), SMALL)

    def test_fold_is_for_layouts(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="a manifest has no folds"):
            load(manifest(tmp_path, study(tmp_path)), SMALL, fold=1)
        with pytest.raises(DataError, match="a synthetic source has no folds"):
            load("synthetic-mri", SMALL, fold=1)


class TestSynthetic:
    def test_names_are_sources(self) -> None:
        assert detect("synthetic-he") == "synthetic-he"
        assert contract_for("synthetic-mri", SMALL) == SMALL

    def test_size_and_site(self) -> None:
        contract = DataContract(size_px=32, channels=1)
        dataset = load("synthetic-mri", contract, patients=3, slices=1, site="B")
        assert dataset.sites == ("B",)
        assert dataset.cohorts["B"].train[0].images.shape == (1, 1, 32, 32)
        with pytest.raises(DataError, match="no site Z"):
            load("synthetic-mri", contract, patients=3, slices=1, site="Z")

    def test_one_foreground_class_only(self) -> None:
        with pytest.raises(DataError, match="one foreground class"):
            load("synthetic-mri", DataContract(size_px=32, classes=3, labels=(0, 1, 2)))


REAL = os.environ.get("FEDBCS_REAL_DATA", "")


@pytest.mark.skipif(not REAL, reason="FEDBCS_REAL_DATA is not set")
class TestRealNuclei:
    def test_counts_and_tensors(self) -> None:
        dataset = load(REAL, DataContract())
        train = {"A": 60, "B": 40, "C": 40, "D": 50}
        test = {"A": 20, "B": 15, "C": 15, "D": 20}
        assert dataset.sites == ("A", "B", "C", "D")
        for site, cohort in dataset.cohorts.items():
            assert len(cohort.train) + len(cohort.validation) == train[site]
            assert len(cohort.validation) == train[site] // 10
            assert len(cohort.test) == test[site]
            for patient in (*cohort.train, *cohort.validation, *cohort.test):
                assert patient.images.shape == (1, 3, 128, 128)
                assert (patient.images.min(), patient.images.max()) == (0, 1)
                assert set(np.unique(patient.masks)) <= {0, 1}

    def test_without_a_carve(self) -> None:
        dataset = load(REAL, DataContract(validation_fraction=0))
        assert [len(dataset.cohorts[site].train) for site in "ABCD"] == [60, 40, 40, 50]
