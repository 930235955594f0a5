"""Reading files, scaling, resizing, and leading masks back to the file's geometry."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fedbcs_secure.data.images import load_image, load_pair, read_raw, restore_mask, save_mask
from fedbcs_secure.data.raw import MAX_SIDE_PX
from fedbcs_secure.errors import DataError
from fedbcs_secure.sections import DataContract

SQUARE = DataContract(size_px=32)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def volume(shape: tuple[int, int, int] = (40, 32, 5), affine: np.ndarray | None = None):
    """A NIfTI of (X, Y, Z) ``shape`` whose voxels all differ."""
    affine = np.diag([0.5, 0.75, 3.0, 1.0]) if affine is None else affine
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return nib.Nifti1Image(voxels, affine)


class TestFormats:
    def test_colour_png_is_scaled_over_all_channels_together(self, tmp_path: Path) -> None:
        pixels = rng().integers(10, 200, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        loaded = load_image(tmp_path / "a.png", SQUARE)
        low, high = float(pixels.min()), float(pixels.max())
        expected = (pixels.transpose(2, 0, 1)[None] - low) / (high - low)
        assert loaded.images.dtype == np.float32
        np.testing.assert_allclose(loaded.images, expected, atol=1e-6)

    def test_grey_becomes_three_equal_channels(self, tmp_path: Path) -> None:
        Image.fromarray(rng().integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / "g.png")
        images = load_image(tmp_path / "g.png", SQUARE).images
        assert images.shape == (1, 3, 32, 32)
        assert (images == images[:, :1]).all()

    def test_colour_becomes_one_channel_by_luminance(self, tmp_path: Path) -> None:
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[:, :10, 0], pixels[:, 10:20, 1], pixels[:, 20:, 2] = 255, 255, 255
        Image.fromarray(pixels).save(tmp_path / "c.png")
        images = load_image(
            tmp_path / "c.png", DataContract(size_px=32, channels=1, scaling="fixed")
        ).images
        assert images.shape == (1, 1, 32, 32)
        np.testing.assert_allclose(images[0, 0, 0, [0, 10, 20]], [0.299, 0.587, 0.114], atol=1e-6)

    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_alpha_is_dropped(self, tmp_path: Path, mode: str) -> None:
        pixels = rng().integers(0, 255, (32, 32, len(mode)), dtype=np.uint8)
        Image.fromarray(pixels, mode).save(tmp_path / "a.png")
        Image.fromarray(pixels[..., :3] if mode == "RGBA" else pixels[..., 0]).save(
            tmp_path / "b.png"
        )
        opaque = load_image(tmp_path / "b.png", SQUARE).images
        np.testing.assert_array_equal(load_image(tmp_path / "a.png", SQUARE).images, opaque)

    def test_jpeg_orientation_is_ignored_for_image_and_label(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[274] = 6  # "rotate by 90 degrees"
        grey = np.zeros((32, 48), np.uint8)
        Image.fromarray(grey).save(tmp_path / "a.jpg", exif=exif)
        Image.fromarray(grey).save(tmp_path / "l.png")
        assert load_image(tmp_path / "a.jpg", SQUARE).shape == (1, 32, 48)
        assert load_pair(tmp_path / "a.jpg", tmp_path / "l.png", SQUARE).masks.sum() == 0

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_tiff_keeps_its_depth(self, tmp_path: Path, dtype: type, compression: str) -> None:
        pixels = (rng().random((32, 32)) * 255).astype(dtype) * dtype(
            200 if dtype != np.uint8 else 1
        )
        tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression)
        np.testing.assert_array_equal(read_raw(tmp_path / "a.tif").pixels[0, ..., 0], pixels)

    @pytest.mark.parametrize("compression", ["tiff_lzw", "packbits"])
    def test_tiff_in_other_compressions(self, tmp_path: Path, compression: str) -> None:
        pixels = rng().integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
        np.testing.assert_array_equal(read_raw(tmp_path / "a.tif").pixels[0], pixels)

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_tiff_orientation_is_ignored(self, tmp_path: Path, orientation: int) -> None:
        tag = (274, "H", 1, orientation, True)
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.uint8), extratags=[tag])
        assert read_raw(tmp_path / "a.tif").shape == (1, 20, 30)

    def test_pages_of_a_tiff_are_slices(self, tmp_path: Path) -> None:
        pages = rng().integers(0, 4000, (5, 20, 30), dtype=np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
        raw = read_raw(tmp_path / "a.tif")
        assert raw.file_shape == (5, 20, 30)
        np.testing.assert_array_equal(raw.pixels[..., 0], pages)

    def test_pages_of_different_shapes_are_refused(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(np.zeros((20, 30), np.uint8))
            file.write(np.zeros((10, 15), np.uint8))
        with pytest.raises(DataError, match="2 images of different shapes"):
            read_raw(tmp_path / "a.tif")

    def test_inverted_grey_is_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9), np.uint8), photometric="miniswhite")
        with pytest.raises(DataError, match="inverted grey"):
            read_raw(tmp_path / "a.tif")

    def test_nifti_slices_are_transposed_and_spaced(self, tmp_path: Path) -> None:
        nib.save(volume(), tmp_path / "v.nii.gz")
        raw = read_raw(tmp_path / "v.nii.gz")
        voxels = np.asarray(volume().dataobj)
        assert raw.shape == (5, 32, 40)
        assert raw.spacing_mm == (0.75, 0.5)
        np.testing.assert_array_equal(raw.pixels[3, ..., 0], voxels[:, :, 3].T)
        loaded = load_image(tmp_path / "v.nii.gz", DataContract(size_px=16))
        assert loaded.spacing_mm == pytest.approx((0.75 * 32 / 16, 0.5 * 40 / 16))

    def test_nifti_of_two_dimensions_and_in_metres(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(np.zeros((40, 32), np.float32), np.diag([5e-4, 2e-3, 1, 1]))
        image.header.set_xyzt_units("meter")
        nib.save(image, tmp_path / "v.nii")
        raw = read_raw(tmp_path / "v.nii")
        assert raw.shape == (1, 32, 40)
        assert raw.spacing_mm == pytest.approx((2.0, 0.5))

    def test_nifti_intensity_scale_is_applied(self, tmp_path: Path) -> None:
        image = volume()
        image.header.set_slope_inter(2.0, -10.0)
        nib.save(image, tmp_path / "v.nii")
        raw = read_raw(tmp_path / "v.nii")
        stored = nib.load(tmp_path / "v.nii").get_fdata()
        np.testing.assert_allclose(raw.pixels[..., 0], stored.transpose(2, 1, 0), atol=1e-6)

    @pytest.mark.parametrize(
        ("voxels", "words"),
        [
            (np.zeros((8, 8, 4, 3), np.float32), "2 or 3 dimensions"),
            (np.zeros((8, 8, 4), np.complex64), "one number a voxel"),
        ],
    )
    def test_other_niftis_are_refused(self, tmp_path: Path, voxels: np.ndarray, words: str) -> None:
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "v.nii")
        with pytest.raises(DataError, match=words):
            read_raw(tmp_path / "v.nii")

    def test_unknown_suffix(self, tmp_path: Path) -> None:
        (tmp_path / "a.bmp").write_bytes(b"BM")
        with pytest.raises(DataError, match=r"a\.bmp: unknown kind of file: expected one of .png"):
            read_raw(tmp_path / "a.bmp")


class TestScaling:
    def test_percentile99_clips_above_and_keeps_the_minimum(self, tmp_path: Path) -> None:
        pixels = rng().integers(100, 4000, (32, 32), dtype=np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", pixels)
        images = load_image(
            tmp_path / "a.tif", DataContract(size_px=32, scaling="percentile99")
        ).images
        top = np.percentile(pixels, 99)
        expected = np.clip((pixels - pixels.min()) / (top - pixels.min()), 0, 1)
        np.testing.assert_allclose(images[0, 0], expected, atol=1e-6)

    def test_percentile99_of_a_nearly_empty_image_stays_in_range(self, tmp_path: Path) -> None:
        pixels = np.zeros((32, 32), np.uint8)
        pixels[0, :2] = (100, 200)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        images = load_image(
            tmp_path / "a.png", DataContract(size_px=32, scaling="percentile99")
        ).images
        np.testing.assert_allclose(images[0, 0, 0, :3], [0.5, 1, 0])

    def test_a_volume_is_scaled_as_one(self, tmp_path: Path) -> None:
        image = volume((32, 32, 5))
        nib.save(image, tmp_path / "v.nii")
        images = load_image(tmp_path / "v.nii", SQUARE).images
        voxels = image.get_fdata()
        np.testing.assert_allclose(
            images[:, 0], voxels.transpose(2, 1, 0) / voxels.max(), atol=1e-6
        )

    def test_fixed_refuses_more_than_8_bits(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.full((32, 32), 300, np.uint16))
        with pytest.raises(DataError, match="300: expected 0 to 255"):
            load_image(tmp_path / "a.tif", DataContract(size_px=32, scaling="fixed"))

    def test_a_constant_image_is_zero(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((40, 40), 77, np.uint8)).save(tmp_path / "a.png")
        assert not load_image(tmp_path / "a.png", SQUARE).images.any()

    def test_shrinking_is_filtered(self, tmp_path: Path) -> None:
        board = ((np.indices((128, 128)).sum(0) % 2) * 255).astype(np.uint8)
        Image.fromarray(board).save(tmp_path / "a.png")
        images = load_image(tmp_path / "a.png", SQUARE).images[0, 0]
        assert abs(images[4:-4, 4:-4] - 0.5).max() < 0.02


class TestStacks:
    def test_neighbours_are_channels_and_edges_repeat(self, tmp_path: Path) -> None:
        nib.save(volume((32, 32, 4)), tmp_path / "v.nii")
        single = load_image(tmp_path / "v.nii", DataContract(size_px=32, channels=1)).images[:, 0]
        stacks = load_image(tmp_path / "v.nii", DataContract(size_px=32, volume="stack3")).images
        assert stacks.shape == (4, 3, 32, 32)
        np.testing.assert_array_equal(stacks[0], single[[0, 0, 1]])
        np.testing.assert_array_equal(stacks[2], single[[1, 2, 3]])
        np.testing.assert_array_equal(stacks[3], single[[2, 3, 3]])

    def test_one_slice_keeps_its_colours(self, tmp_path: Path) -> None:
        pixels = rng().integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        stack = load_image(tmp_path / "a.png", DataContract(size_px=32, volume="stack3")).images
        np.testing.assert_array_equal(stack, load_image(tmp_path / "a.png", SQUARE).images)


class TestLabels:
    def pair(self, tmp_path: Path, label: np.ndarray, contract: DataContract) -> np.ndarray:
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "i.png")
        Image.fromarray(label).save(tmp_path / "l.png")
        return load_pair(tmp_path / "i.png", tmp_path / "l.png", contract).masks[0]

    def test_nonzero(self, tmp_path: Path) -> None:
        label = rng().choice(np.array([0, 1, 128, 255], np.uint8), (32, 32))
        np.testing.assert_array_equal(self.pair(tmp_path, label, SQUARE), label > 0)

    def test_listed_values_become_their_index(self, tmp_path: Path) -> None:
        contract = DataContract(size_px=32, classes=3, labels=(255, 0, 7))
        classes = rng().integers(0, 3, (32, 32))
        label = np.array([255, 0, 7], np.uint8)[classes]
        np.testing.assert_array_equal(self.pair(tmp_path, label, contract), classes)

    def test_a_palette_means_indices(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "i.png")
        classes = rng().integers(0, 2, (32, 32), dtype=np.uint8)
        label = Image.fromarray(classes, "P")
        label.putpalette([255, 0, 0, 0, 0, 255])
        label.save(tmp_path / "l.png")
        contract = DataContract(size_px=32, labels=(0, 1))
        masks = load_pair(tmp_path / "i.png", tmp_path / "l.png", contract).masks
        np.testing.assert_array_equal(masks[0], classes)

    def test_equal_channels_are_a_label_and_colours_are_not(self, tmp_path: Path) -> None:
        label = np.zeros((32, 32, 3), np.uint8)
        label[:5] = 255
        assert self.pair(tmp_path, label, SQUARE).sum() == 5 * 32
        label[:5, :, 1] = 0
        with pytest.raises(DataError, match=r"l\.png: a label with colours"):
            self.pair(tmp_path, label, SQUARE)

    def test_a_value_outside_the_classes_is_named(self, tmp_path: Path) -> None:
        label = np.zeros((32, 32), np.uint8)
        label[0, :3] = (5, 9, 9)
        contract = DataContract(size_px=32, labels=(0, 1))
        with pytest.raises(DataError, match=r"3 pixel\(s\) .*\(5, 9\): expected the values 0, 1"):
            self.pair(tmp_path, label, contract)

    @pytest.mark.parametrize("value", [-1.0, np.nan])
    def test_nonzero_refuses_negative_and_nan(self, tmp_path: Path, value: float) -> None:
        tifffile.imwrite(tmp_path / "l.tif", np.full((32, 32), value, np.float32))
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "i.png")
        with pytest.raises(DataError, match=r"1024 pixel\(s\) with a label value outside"):
            load_pair(tmp_path / "i.png", tmp_path / "l.tif", SQUARE)

    def test_resizing_invents_no_class(self, tmp_path: Path) -> None:
        contract = DataContract(size_px=48, classes=3, labels=(0, 1, 2))
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "i.png")
        label = np.where(np.indices((32, 32))[0] < 16, 0, 2).astype(np.uint8)
        Image.fromarray(label).save(tmp_path / "l.png")
        masks = load_pair(tmp_path / "i.png", tmp_path / "l.png", contract).masks
        assert set(np.unique(masks)) == {0, 2}

    def test_problems_of_image_and_label_come_together(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "i.tif", np.full((32, 32), np.inf, np.float32))
        tifffile.imwrite(tmp_path / "l.tif", np.full((32, 32), -1, np.int16))
        with pytest.raises(DataError) as caught:
            load_pair(tmp_path / "i.tif", tmp_path / "l.tif", SQUARE)
        assert len(caught.value.problems) == 2
        assert "NaN or infinite" in caught.value.problems[0]


class TestRestoring:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_nifti_of_the_network_size_is_exact(self, tmp_path: Path, suffix: str) -> None:
        turned = np.array([[0, -0.6, 0, 10], [0.5, 0, 0.1, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
        nib.save(volume((32, 32, 5), turned), tmp_path / f"v{suffix}")
        loaded = load_image(tmp_path / f"v{suffix}", SQUARE)
        masks = rng().integers(0, 2, (5, 32, 32), dtype=np.uint8)
        save_mask(loaded, restore_mask(loaded, masks, SQUARE), tmp_path / f"m{suffix}")
        saved = nib.load(tmp_path / f"m{suffix}")
        original = nib.load(tmp_path / f"v{suffix}")
        np.testing.assert_array_equal(saved.affine, original.affine)
        assert saved.header.get_zooms() == original.header.get_zooms()
        assert saved.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(saved.dataobj), masks.transpose(2, 1, 0))
        again = load_pair(tmp_path / f"v{suffix}", tmp_path / f"m{suffix}", SQUARE)
        np.testing.assert_array_equal(again.masks, masks)

    def test_nifti_keeps_trailing_axes_and_drops_extensions(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(np.ones((20, 24, 3, 1), np.float32), np.eye(4))
        image.header.extensions.append(nib.nifti1.Nifti1Extension(4, b"name of a patient"))
        nib.save(image, tmp_path / "v.nii")
        loaded = load_image(tmp_path / "v.nii", SQUARE)
        restored = restore_mask(loaded, np.ones((3, 32, 32), np.uint8), SQUARE)
        save_mask(loaded, restored, tmp_path / "m.nii")
        assert nib.load(tmp_path / "m.nii").shape == (20, 24, 3, 1)
        assert b"name of a patient" not in (tmp_path / "m.nii").read_bytes()

    def test_second_version_of_nifti(self, tmp_path: Path) -> None:
        nib.save(nib.Nifti2Image(np.zeros((32, 32, 2), np.int16), np.eye(4)), tmp_path / "v.nii")
        loaded = load_image(tmp_path / "v.nii", SQUARE)
        restored = restore_mask(loaded, np.zeros((2, 32, 32), np.uint8), SQUARE)
        save_mask(loaded, restored, tmp_path / "m.nii")
        assert isinstance(nib.load(tmp_path / "m.nii"), nib.Nifti2Image)

    def test_png_of_another_shape(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "a.png")
        loaded = load_image(tmp_path / "a.png", SQUARE)
        masks = np.zeros((1, 32, 32), np.uint8)
        masks[0, :16, :8] = 1
        save_mask(loaded, restore_mask(loaded, masks, SQUARE), tmp_path / "m.png")
        saved = np.asarray(Image.open(tmp_path / "m.png"))
        expected = np.zeros((64, 96), np.uint8)
        expected[:32, :24] = 255
        np.testing.assert_array_equal(saved, expected)

    def test_tiff_pages(self, tmp_path: Path) -> None:
        tifffile.imwrite(
            tmp_path / "a.tif", np.zeros((3, 32, 32), np.uint16), photometric="minisblack"
        )
        contract = DataContract(size_px=32, labels=(0, 700))
        loaded = load_image(tmp_path / "a.tif", contract)
        masks = rng().integers(0, 2, (3, 32, 32), dtype=np.uint8)
        save_mask(loaded, restore_mask(loaded, masks, contract), tmp_path / "m.tif")
        saved = tifffile.imread(tmp_path / "m.tif")
        assert saved.dtype == np.uint16
        np.testing.assert_array_equal(saved, masks.astype(np.uint16) * 700)

    @settings(
        max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(factors=st.tuples(st.integers(1, 3), st.integers(1, 3)), seed=st.integers(0, 99))
    def test_mask_in_the_file_is_the_mask_read_back(
        self, tmp_path: Path, factors: tuple[int, int], seed: int
    ) -> None:
        """Enlarging by whole factors and reading again loses nothing."""
        shape = (16 * factors[0], 16 * factors[1])
        contract = DataContract(size_px=16, classes=3, labels=(0, 50, 100))
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "a.png")
        masks = np.random.default_rng(seed).integers(0, 3, (1, 16, 16), dtype=np.uint8)
        loaded = load_image(tmp_path / "a.png", contract)
        save_mask(loaded, restore_mask(loaded, masks, contract), tmp_path / "m.png")
        again = load_pair(tmp_path / "a.png", tmp_path / "m.png", contract).masks
        np.testing.assert_array_equal(again, masks)

    def test_what_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "a.png")
        loaded = load_image(tmp_path / "a.png", SQUARE)
        with pytest.raises(DataError, match=r"expected \(1, 32, 32\) uint8"):
            restore_mask(loaded, np.zeros((2, 32, 32), np.uint8), SQUARE)
        with pytest.raises(DataError, match=r"a mask with class 2: expected 0\.\.1"):
            restore_mask(loaded, np.full((1, 32, 32), 2, np.uint8), SQUARE)
        array = restore_mask(loaded, np.zeros((1, 32, 32), np.uint8), SQUARE)
        with pytest.raises(DataError, match=r"a name ending in \.png"):
            save_mask(loaded, array, tmp_path / "m.jpg")
        with pytest.raises(DataError, match=r"expected \(32, 32\)"):
            save_mask(loaded, array[:5], tmp_path / "m.png")


def _png_header(width: int, height: int) -> bytes:
    """A PNG that declares its size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


class TestDamaged:
    def files(self, folder: Path) -> list[Path]:
        pixels = rng().integers(0, 4000, (6, 40, 50), dtype=np.uint16)
        Image.fromarray(pixels[0].astype(np.uint8)).save(folder / "a.png")
        Image.fromarray(pixels[0].astype(np.uint8)).save(folder / "a.jpg")
        tifffile.imwrite(folder / "plain.tif", pixels, photometric="minisblack")
        tifffile.imwrite(folder / "z.tif", pixels, photometric="minisblack", compression="zlib")
        tifffile.imwrite(folder / "big.tif", pixels, photometric="minisblack", bigtiff=True)
        tifffile.imwrite(folder / "ij.tif", pixels, imagej=True, metadata={"axes": "ZYX"})
        nib.save(nib.Nifti1Image(pixels, np.eye(4)), folder / "v.nii")
        nib.save(nib.Nifti1Image(pixels, np.eye(4)), folder / "v.nii.gz")
        return sorted(folder.iterdir())

    @pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.6, 0.9])
    def test_truncated_files_are_named(self, tmp_path: Path, kept: float) -> None:
        for path in self.files(tmp_path):
            read_raw(path)
            whole = path.read_bytes()
            path.write_bytes(whole[: int(len(whole) * kept)])
            with pytest.raises(DataError, match=r"truncated|pages|declares") as caught:
                read_raw(path)
            assert str(path) in str(caught.value)

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_damaged_bytes_raise_nothing_else(self, tmp_path: Path, data: st.DataObject) -> None:
        folder = tmp_path / "whole"
        if not folder.exists():
            folder.mkdir()
            self.files(folder)
        path = data.draw(st.sampled_from(sorted(folder.iterdir())))
        damaged = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, min(len(damaged), 500) - 1))
            damaged[at] = data.draw(st.integers(0, 255))
        target = tmp_path / path.name
        target.write_bytes(bytes(damaged))
        problem = ""
        images = np.zeros(1, np.float32)
        try:
            images = load_image(target, SQUARE).images
        except DataError as error:
            problem = str(error)
        assert not problem or path.name in problem
        assert np.isfinite(images).all()
        assert images.min() >= 0
        assert images.max() <= 1

    @pytest.mark.parametrize("size", [(MAX_SIDE_PX + 1, 10), (19_000, 19_000), (2**31 - 1, 1)])
    def test_a_huge_png_is_refused_by_its_header(
        self, tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_decoding(self: Image.Image) -> None:
            raise AssertionError("decoded")

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", no_decoding)
        (tmp_path / "a.png").write_bytes(_png_header(*size))
        with pytest.raises(DataError, match=r"declares|decompression bomb|exceeds limit") as caught:
            read_raw(tmp_path / "a.png")
        assert "a.png" in str(caught.value)

    def test_a_huge_tiff_is_refused_by_its_header(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16), np.uint8))
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            file.pages[0].tags["ImageWidth"].overwrite(60_000)
        with pytest.raises(DataError, match="declares 16 x 60000 pixels"):
            read_raw(tmp_path / "a.tif")

    def test_a_huge_nifti_is_refused_by_its_header(self, tmp_path: Path) -> None:
        header = nib.Nifti1Header()
        header.set_data_shape((15_000, 15_000, 10_000))
        header.set_data_dtype(np.int16)
        header["magic"] = b"n+1"
        header["vox_offset"] = 352
        (tmp_path / "v.nii").write_bytes(header.binaryblock + bytes(1000))
        with pytest.raises(DataError, match="declares 15000 x 15000 x 10000 pixels"):
            read_raw(tmp_path / "v.nii")

    def test_a_missing_file_is_called_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"a\.png: missing: expected a file"):
            read_raw(tmp_path / "a.png")
