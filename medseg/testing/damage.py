"""What a reader must do with damage and with claims: half of `medseg.testing.readers.ReaderContract`, and its hooks."""

from __future__ import annotations

import shutil
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from medseg import io
from medseg.errors import FormatError, InputError, MedsegError, MedsegWarning, MissingError
from medseg.grid import Grid
from medseg.image import Image, LazyArray

AnyArray = npt.NDArray[Any]

SECRET = "Doe^Jane"
UPRIGHT = np.array([[0, 0, 0.7, -30.0], [0, 0.8, 0, 40.0], [2.5, 0, 0, 50.0], [0, 0, 0, 1]])
_TURN = np.array([[0.8, -0.36, 0.48, 0], [0.6, 0.48, -0.64, 0], [0, 0.8, 0.6, 0], [0, 0, 0, 1]])


class DamageContract:
    """See `medseg.testing.readers.ReaderContract`."""

    shape: ClassVar[tuple[int, ...]] = (4, 5, 6)
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "int16", "uint16", "float32")
    lazy: ClassVar[bool] = True
    placed: ClassVar[bool] = True
    spaced: ClassVar[bool] = True
    sealed: ClassVar[bool] = True
    other_suffix: ClassVar[str] = ".png"

    # --- what a subclass writes

    def write(self, folder: Path, values: AnyArray, grid: Grid, secret: str = "") -> Path:
        """Write one image and return what is to be opened: a file in `folder`, or a folder of it.

        Parameters
        ----------
        folder : Path
            Empty.
        values : array of `shape`
            Voxels.
        grid : Grid
            Where they lie; a patient grid if the format holds one.
        secret : str
            Text to put into a header field of free text, if there is one.
        """
        raise NotImplementedError("A suite of the reader contract writes files of its format.")

    def claim(self, folder: Path) -> Path | None:
        """Write a small file that claims a terabyte of voxels, and return it; None if the format cannot claim."""
        return None

    def load(self, path: Path) -> Image:
        """Open it; a reader that `medseg.io.load` does not know is called here."""
        return io.load(path)

    # --- what the suite does with it

    def grid(self, turned: bool = False) -> Grid:
        """The grid that is written."""
        if len(self.shape) == 2 or not self.placed:
            return Grid.from_spacing(self.shape, (2.5, 0.8, 0.7)[-len(self.shape) :] if self.spaced else None)
        return Grid(self.shape, _TURN @ UPRIGHT if turned else UPRIGHT, space="patient")

    def values(self, dtype: str | None = None) -> AnyArray:
        """Random voxels over the whole range of a type."""
        kind, draw = np.dtype(dtype or self.dtypes[0]), np.random.default_rng(7)
        if kind.kind == "f":
            return draw.normal(0, 1e3, self.shape).astype(kind)
        span = np.iinfo(kind)
        return draw.integers(span.min, span.max, self.shape, dtype=kind, endpoint=True)

    def written(self, folder: Path, secret: str = "", dtype: str | None = None, name: str = "a") -> Path:
        """Write the usual image into a folder of its own."""
        inner = folder / name
        inner.mkdir()
        return self.write(inner, self.values(dtype), self.grid(), secret)

    # --- damage

    def test_truncation_is_noticed(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """Cut anywhere, on loading or when the voxels are touched: never a volume, and never a name."""
        file = max(files(self.written(tmp_path, SECRET)), key=lambda one: one.stat().st_size)
        path, whole = self._opened(tmp_path, file), file.read_bytes()
        cuts = {int(len(whole) * share) for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97)} | {4, len(whole) - 40}
        for size in sorted(cuts | ({len(whole) - 1} if self.sealed else set())):
            file.write_bytes(whole[: max(1, size)])
            self._refused(path, f"{size} of {len(whole)} bytes")
        assert capfd.readouterr() == ("", "")

    def test_noise_is_no_image(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        file = files(self.written(tmp_path))[0]
        path = self._opened(tmp_path, file)
        noise = np.random.default_rng(1).bytes(5000)
        for content in (noise, SECRET.encode() * 300, file.read_bytes()[:20] + noise):
            file.write_bytes(content)
            self._refused(path, "noise")
        assert capfd.readouterr() == ("", "")

    def test_bytes_changed_anywhere_give_an_image_or_a_typed_error(self, tmp_path: Path) -> None:
        file = files(self.written(tmp_path, SECRET))[0]
        path, whole = self._opened(tmp_path, file), file.read_bytes()
        draw = np.random.default_rng(2)
        for _ in range(60):
            damaged = bytearray(whole)
            for at in draw.integers(0, min(len(whole), 2000), 3):
                damaged[at] = int(draw.integers(256))
            file.write_bytes(bytes(damaged))
            with quiet():
                try:
                    self.load(path).voxels()
                except MedsegError as error:
                    check_message(error)

    def test_an_empty_file(self, tmp_path: Path) -> None:
        file = files(self.written(tmp_path))[0]
        path = self._opened(tmp_path, file)
        file.write_bytes(b"")
        self._refused(path, "an empty file")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        with pytest.raises(MissingError):
            self.load(path.with_name("b" + path.name))
        image = self.load(path)
        for file in image.source.files if image.source else ():
            file.unlink()
        if isinstance(image.array, LazyArray) and not image.array.loaded:
            with pytest.raises(InputError):
                image.voxels()

    def test_a_folder_named_like_a_file(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.mkdir()
        with pytest.raises(InputError):
            self.load(path)

    def test_a_wrong_suffix_is_refused(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        if not self.other_suffix or path.is_dir():
            pytest.skip("names say nothing here")
        wrong = path.with_name("a" + self.other_suffix)
        path.rename(wrong)
        with quiet(), pytest.raises(FormatError) as caught:
            self.load(wrong).voxels()
        assert wrong.name in str(caught.value)

    # --- size

    def test_a_claim_over_the_limit_takes_no_memory(self, tmp_path: Path) -> None:
        path = self.claim(tmp_path)
        if path is None:
            pytest.skip("this format cannot claim more than it holds")
        self.load(self.written(tmp_path, name="warm"))  # what libraries keep once they are loaded does not count
        tracemalloc.start()
        try:
            with quiet(), pytest.raises(InputError):
                self.load(path).voxels()
            assert tracemalloc.get_traced_memory()[1] < 1 << 26
        finally:
            tracemalloc.stop()

    def test_the_limit_is_the_users(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.written(tmp_path)
        size = self.values().nbytes
        monkeypatch.setenv("MEDSEG_MAX_GB", str(size / 2 / 1e9))
        with quiet():
            try:
                image = self.load(path)
            except InputError as error:
                assert "MEDSEG_MAX_GB" in str(error)
            else:  # what stays in its file until it is touched takes no memory
                assert not isinstance(image.array, LazyArray)
                assert mapped(image.array)
        monkeypatch.setenv("MEDSEG_MAX_GB", "1")
        np.testing.assert_array_equal(self.load(path).voxels()[0], self.values())

    def _refused(self, path: Path, what: str) -> None:
        """A damaged file is a typed error; in a folder of many it may be passed over, but not without a word."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                self.load(path).voxels()
            except InputError as error:
                check_message(error)
            else:
                ours = [one for one in told if issubclass(one.category, MedsegWarning)]
                assert path.is_dir() and ours, f"{what} gave an image"
        assert not [str(one.message) for one in told if not issubclass(one.category, MedsegWarning)]
        assert not any(names(str(one.message)) for one in told)

    def _opened(self, folder: Path, file: Path) -> Path:
        """What is opened to read a file: itself, or the folder it lies in."""
        inner = folder / "a"
        return file if file.parent == inner else inner / file.relative_to(inner).parts[0]


@contextmanager
def quiet() -> Iterator[None]:
    """No warning may leak but ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", MedsegWarning)
        yield


def files(path: Path) -> list[Path]:
    """The files of an image: itself, or all in its folder."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def mapped(array: Any) -> bool:
    """Whether voxels stay in their file until they are touched."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def names(text: str) -> bool:
    """Whether a text holds what only a header can have told."""
    return SECRET.split("^")[0] in text


def check_message(error: BaseException) -> None:
    """A message is ours, names nobody and quotes no header."""
    text = f"{error} {error.__cause__ or ''}"
    assert not names(text)
    assert str(error).strip()
