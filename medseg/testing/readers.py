"""The contract of a reader of images, as tests: inherit `ReaderContract`, write a file, and run pytest."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg import io
from medseg.image import LazyArray
from medseg.testing.damage import SECRET, DamageContract, mapped, quiet


class ReaderContract(DamageContract):
    """Everything the pipeline leans on in a reader: truth, or a typed error that names nobody.

    Inherit it, set the attributes, and write `write`, best with a library that is not the reader's own.

    Attributes
    ----------
    shape : tuple of int
        Of the volume that is written: (z, y, x), or (y, x) for a format of flat pictures.
    dtypes : tuple of str
        Voxel types that the format holds and must give back exactly.
    lazy : bool
        Whether reading the header leaves the voxels alone.
    placed, spaced : bool
        Whether the format holds position and direction; or at least the spacing.
    sealed : bool
        Whether a file that lost its last byte must be noticed; otherwise only larger losses must.
    other_suffix : str
        A suffix of another format, under which the file must be refused; empty: names do not matter.

    Examples
    --------
    >>> import nibabel
    >>> class TestNifti(ReaderContract):
    ...     def write(self, folder, values, grid, secret=""):
    ...         image = nibabel.Nifti1Image(values.T, grid.to_nifti())
    ...         image.header["descrip"] = secret
    ...         nibabel.save(image, folder / "a.nii.gz")
    ...         return folder / "a.nii.gz"
    """

    def test_values_are_exact(self, tmp_path: Path) -> None:
        for dtype in self.dtypes:
            image = self.load(self.written(tmp_path, dtype=dtype, name=dtype))
            found, wanted = image.voxels(), self.values(dtype)
            assert found.shape == (1, *self.shape)
            assert found.dtype == image.array.dtype == wanted.dtype
            np.testing.assert_array_equal(found[0], wanted)

    def test_every_corner_lies_where_it_was_written(self, tmp_path: Path) -> None:
        for turned in (False, True):
            (tmp_path / str(turned)).mkdir()
            grid = self.grid(turned)
            found = self.load(self.write(tmp_path / str(turned), self.values(), grid)).grid
            assert found.shape == grid.shape
            assert found.known == self.spaced
            if self.spaced:
                assert found.unit == "mm"
                np.testing.assert_allclose(found.spacing, grid.spacing, rtol=1e-6)
            if self.placed:
                assert found.why_not(grid) is None
                assert found.space == "patient"

    def test_the_header_is_read_and_the_voxels_are_not(self, tmp_path: Path) -> None:
        if not self.lazy:
            pytest.skip("this format is read whole")
        array = self.load(self.written(tmp_path)).array
        assert not array.loaded if isinstance(array, LazyArray) else mapped(array)

    def test_a_region_is_a_part_of_the_whole(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        region = tuple(slice(1, size - 1) for size in self.shape)
        np.testing.assert_array_equal(self.load(path).voxels(region), self.load(path).voxels()[(slice(None), *region)])

    def test_voxels_cannot_be_written(self, tmp_path: Path) -> None:
        voxels = self.load(self.written(tmp_path)).voxels()
        assert not voxels.flags.writeable
        with pytest.raises(ValueError):
            voxels[...] = 0

    def test_it_says_where_it_came_from(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        source = self.load(path).source
        assert source is not None
        assert source.format
        assert source.files
        assert all(file.exists() and (file == path or path.parent in file.parents) for file in source.files)

    def test_the_content_hash_is_that_of_the_content(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        moved = tmp_path / "moved"
        shutil.copytree(path.parent, moved)
        other = self.write(_made(tmp_path / "b"), self.values()[::-1].copy(), self.grid())
        hashes = [self._hash(one) for one in (path, path, moved / path.name, other)]
        assert hashes[0] == hashes[1] == hashes[2] != hashes[3]

    def _hash(self, path: Path) -> str:
        source = self.load(path).source
        return source.content_hash() if source else ""

    def test_nothing_is_said_aloud(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        with quiet():
            self.load(self.written(tmp_path, SECRET)).voxels()
        assert capfd.readouterr() == ("", "")

    def test_given_spacing_is_used(self, tmp_path: Path) -> None:
        if self.spaced:
            pytest.skip("the format states its spacing")
        spacing = (3.0, 2.0, 1.0)[-len(self.shape) :]
        with quiet():
            image = io.load(self.written(tmp_path), spacing=spacing)
        assert image.grid.known
        assert image.grid.spacing == pytest.approx(spacing)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
