"""Manifests: columns, rows, grouping, and everything that is wrong at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbcs_secure.data.listing import MAX_LIST_BYTES, FilePair
from fedbcs_secure.data.manifest import read_manifest
from fedbcs_secure.errors import DataError


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_of_a_patient_are_its_slices_in_order(tmp_path: Path) -> None:
    text = (
        "site,patient,image,label,split\n"
        "B,P1,i2.png,l2.png,train\n"
        "A,P1,i9.png,l9.png,test\n"
        "B,P1,../i1.png,l1.png,train\n"
    )
    listing = read_manifest(write(tmp_path, text))
    assert listing.problems == ()
    assert listing.sites == ("A", "B")
    first, second = listing.patients
    assert (first.site, first.patient_id, first.split) == ("B", "P1", "train")
    assert first.pairs == (
        FilePair(tmp_path / "i2.png", tmp_path / "l2.png"),
        FilePair(tmp_path.parent / "i1.png", tmp_path / "l1.png"),
    )
    assert (second.site, second.split) == ("A", "test")


def test_absolute_paths_stay(tmp_path: Path) -> None:
    image = tmp_path / "elsewhere" / "i.png"
    listing = read_manifest(write(tmp_path, f"patient,image,label\nP1,{image},l.png\n"))
    assert listing.patients[0].pairs[0].image == image


@pytest.mark.parametrize(("given_site", "expected"), [(None, "A"), ("ward-3", "ward-3")])
def test_a_manifest_without_site(tmp_path: Path, given_site: str | None, expected: str) -> None:
    path = write(tmp_path, "patient,image,label\nP1,i.png,l.png\n")
    listing = read_manifest(path, site=given_site)
    assert listing.sites == (expected,)
    assert listing.patients[0].split is None


def test_byte_order_mark_spaces_and_case_are_forgiven(tmp_path: Path) -> None:
    text = "Patient , Image,label,Split\r\nP1, i.png ,l.png, Val\r\n\r\n"
    listing = read_manifest(write(tmp_path, text, "utf-8-sig"))
    assert listing.problems == ()
    assert listing.patients[0].split == "validation"


def test_quoted_commas(tmp_path: Path) -> None:
    listing = read_manifest(write(tmp_path, 'patient,image,label\nP1,"a, b.png",l.png\n'))
    assert listing.patients[0].pairs[0].image.name == "a, b.png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column patient, image, label"),
        ("patient,image\n", "no column label: expected it in the first line"),
        ("patient,image,label,age\n", "unknown column.*age: expected only site, patient"),
        ("patient;image;label\n", "separate columns with commas"),
        ("patient,image,label,image\n", "a column appears twice"),
        ('patient,image,label\nP1,"i.png,l.png\n', "line 2 is not CSV"),
    ],
)
def test_unusable_files(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_manifest(write(tmp_path, text))
    assert all("manifest.csv" in problem for problem in caught.value.problems)


def test_not_utf8_missing_and_huge(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(DataError, match="not UTF-8"):
        read_manifest(write(tmp_path, "patient,image,label\nMüller,i,l\n", "latin-1"))
    with (tmp_path / "manifest.csv").open("wb") as file:
        file.truncate(MAX_LIST_BYTES + 1)
    with pytest.raises(DataError, match="over 50 MB"):
        read_manifest(tmp_path / "manifest.csv")


def test_all_wrong_rows_are_listed_and_right_ones_stay(tmp_path: Path) -> None:
    text = (
        "site,patient,image,label,split\n"
        "A,P1,i1.png,l1.png,train\n"
        "A,P2,i2.png,l2.png\n"
        "bad site,P3,i3.png,l3.png,train\n"
        "A,,i4.png,l4.png,train\n"
        "A,P5,,l5.png,train\n"
        "A,P6,i6.png,i6.png,train\n"
        "A,P7,i7.png,l7.png,holdout\n"
    )
    listing = read_manifest(write(tmp_path, text))
    assert [p.patient_id for p in listing.patients] == ["P1"]
    expected = (
        ("line 3", "as many fields"),
        ("line 4", "site name 'bad site'"),
        ("line 5", "patient id ''"),
        ("line 6", "patient P5: no image"),
        ("line 7", "patient P6: image and label are both i6.png"),
        ("line 8", "patient P7: split 'holdout': expected train, validation (val) or test"),
    )
    assert len(listing.problems) == len(expected)
    for problem, words in zip(listing.problems, expected, strict=True):
        assert all(word in problem for word in words)


def test_patients_in_two_splits_are_all_named(tmp_path: Path) -> None:
    text = (
        "patient,image,label,split\n"
        "P1,i1,l1,train\nP1,i2,l2,test\nP2,i3,l3,val\nP2,i4,l4,\nP3,i5,l5,test\n"
    )
    problems = read_manifest(write(tmp_path, text)).problems
    assert len(problems) == 2
    assert "patient P1: in splits test and train: expected all images of a patient" in problems[0]
    assert "patient P2: in splits (none) and validation" in problems[1]


def test_one_id_at_two_sites_is_two_patients(tmp_path: Path) -> None:
    text = "site,patient,image,label,split\nA,P1,i1,l1,train\nB,P1,i2,l2,test\n"
    listing = read_manifest(write(tmp_path, text))
    assert listing.problems == ()
    assert len(listing.patients) == 2


def test_an_image_listed_twice(tmp_path: Path) -> None:
    text = "patient,image,label\nP1,i1,l1\nP1,x/../i1,l1\nP2,i1,l1\nP2,i2,l2\n"
    problems = read_manifest(write(tmp_path, text)).problems
    assert len(problems) == 2
    assert problems[0].endswith(
        f"patient P1: image {tmp_path / 'i1'} is listed twice: expected once"
    )
    assert "patient P2" in problems[1]
    assert "(first for site A, patient P1)" in problems[1]


def test_no_rows(tmp_path: Path) -> None:
    assert "no rows" in read_manifest(write(tmp_path, "patient,image,label\n")).problems[0]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_text_gives_a_listing_or_a_data_error(tmp_path: Path, body: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(("patient,image,label\n" + body).encode("utf-8", "replace"))
    try:
        listing = read_manifest(path)
    except DataError:
        return
    assert listing.patients or listing.problems
