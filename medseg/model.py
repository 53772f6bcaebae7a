"""Model files: one safetensors file that says everything about itself.

``NAME.safetensors`` holds the weights and one JSON header key ``medseg`` with the whole `ModelSpec`. Reading the header needs no
torch, and nothing in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import struct
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg import presets
from medseg.errors import DeviceError, MissingError, ModelError, SpecError
from medseg.spec import SPEC_VERSION, ModelSpec, parse

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

# A header larger than this is no header of ours; safetensors itself allows 100 MB.
_MAX_HEADER = 4_000_000
_MAX_DEPTH = 32  # of what a header says of itself
_UNSEEN = ("Cc", "Cf", "Cs")  # Unicode's control and format characters and halves of others


@dataclass(frozen=True)
class Model:
    """A model ready to run: its spec, its network on a device, and the hash of its file.

    Make one with `Model.load`.
    """

    spec: ModelSpec
    path: Path
    digest: str
    device: torch.device
    _nets: tuple[Any, ...] = field(repr=False)

    @classmethod
    def load(cls, model: str | Path, device: str = "auto") -> Model:
        """Load by shipped name or file path.

        Raises
        ------
        ModelError
            No such model, or the file is damaged.
        DeviceError
            The device is not there.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load

        from medseg.nets.backbone import place
        from medseg.nets.net import Net

        path = find(model)
        spec = read_header(path)
        where = choose_device(device)
        data = path.read_bytes()
        try:
            tensors = {k: v.float() if v.is_floating_point() else v for k, v in load(data).items()}
            _check_size(spec, tensors)
            nets = torch.nn.ModuleList(Net(spec.net, spec.heads) for _ in range(spec.members))
            whole: torch.nn.Module = nets if spec.members > 1 else nets[0]
            missing, unexpected = whole.load_state_dict(tensors, strict=False)
        except SpecError as error:
            raise ModelError(f"{path.name}: {error}") from None
        except (SafetensorError, RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError):
            raise ModelError(
                f"{path.name}: the weights are damaged or do not fit the header; get the file again"
            ) from None
        if unexpected or [k for k in missing if not k.endswith("num_batches_tracked")]:
            raise ModelError(
                f"{path.name}: the weights do not fit the network that the header names; get the file again"
            )
        place(nets, spec.net.ndim, where).eval()
        return cls(spec, path, hashlib.sha256(data).hexdigest(), where, tuple(nets))

    def maps(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run the network on (C, *shape), one (channels, *shape) raw map per head.

        The array is padded by reflection to what the network's strides need, and cropped again. The maps of all members, and of
        the mirror images where the model asks for them, are averaged.
        """
        import numpy as np

        from medseg import heads

        ndim = array.ndim - 1
        flips: list[tuple[int, ...]] = [()]
        if self.spec.mirrors:  # in plane; along z stacks are short, and their two sides may not look alike
            flips += [(ndim - 1,), (ndim - 2,), (ndim - 2, ndim - 1)]
        total: list[NDArray[np.float32]] = []
        for axes in flips:
            seen = np.ascontiguousarray(np.flip(array, tuple(a + 1 for a in axes)))
            for net in self._nets:
                found = self._run(net, seen)
                for axis in axes:
                    found = [heads.make(s).mirror(m, axis) for s, m in zip(self.spec.heads, found, strict=True)]
                total = [a + b for a, b in zip(total, found, strict=True)] if total else found
        count = len(flips) * len(self._nets)
        return total if count == 1 else [np.asarray(t / count, dtype=np.float32) for t in total]

    def _run(self, net: Any, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        import numpy as np
        import torch

        from medseg.nets.backbone import memory_format
        from medseg.nets.net import fast_dtype

        shape = array.shape[1:]
        extra = [-n % d for n, d in zip(shape, self.spec.net.divisor, strict=True)]
        padded = np.pad(array, [(0, 0), *[(0, e) for e in extra]], mode="symmetric")
        kind = fast_dtype(self.device)
        x = torch.from_numpy(padded)[None].to(self.device)
        x = x.contiguous(memory_format=memory_format(self.spec.net.ndim))
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, kind or torch.bfloat16, enabled=kind is not None),
            ):
                out = net(x)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_memory(error):
                raise
            raise DeviceError(f"{self.device} ran out of memory; use a smaller --tile or --device cpu") from None
        crop = (0, slice(None), *[slice(0, n) for n in shape])
        return [m[crop].float().cpu().numpy() for m in out]


def _check_size(spec: ModelSpec, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ValueError if a header names a larger network than there are weights for, before memory is taken for it."""
    import torch

    from medseg.nets.net import Net

    if spec.members * len(spec.net.filters) > len(tensors):
        raise ValueError
    with torch.device("meta"):  # shapes alone
        one = Net(spec.net, spec.heads)
    if spec.members * sum(p.numel() for p in one.parameters()) > sum(t.numel() for t in tensors.values()):
        raise ValueError


def _is_memory(error: RuntimeError) -> bool:
    """Did an allocation fail? On a CPU torch says so with a bare RuntimeError."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)


def find(model: str | Path) -> Path:
    """Path of a model by shipped or added name or file path; a shipped one goes first.

    Raises
    ------
    ModelError
        Neither a shipped nor an added model nor a file.
    """
    shipped = presets.added() | presets.weights()
    if str(model) in shipped:
        return shipped[str(model)]
    path = Path(model)
    if path.is_file():
        return path
    raise ModelError(
        f"no model {str(model)!r}; give a .safetensors file or one of: {', '.join(shipped) or 'none shipped'}"
    )


def read_header(path: str | Path) -> ModelSpec:
    """The spec in a model file's header, without torch and without reading the weights.

    Raises
    ------
    MissingError
        No such file.
    ModelError
        Not a model file of medseg, damaged, or written by a newer version.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER:
                raise ValueError
            header = json.loads(file.read(length), object_pairs_hook=_once)
            about = json.loads(header["__metadata__"]["medseg"], object_pairs_hook=_once)
        _check_text(about)
        end = _end(header)
        if path.stat().st_size != 8 + length + end:
            raise ValueError  # cut off, or something follows
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except (OSError, ValueError, LookupError, TypeError, RecursionError, struct.error):
        raise ModelError(f"{path.name}: is no model file of medseg or is damaged; get it again") from None
    version = about.get("spec_version") if isinstance(about, dict) else None
    if not isinstance(version, int):
        raise ModelError(f"{path.name}: its header names no spec version; it is damaged, get it again")
    if version > SPEC_VERSION:
        raise ModelError(f"{path.name}: was written by a newer medseg (spec {version}); upgrade medseg")
    try:
        return parse(ModelSpec, _upgraded(about, version), path.name)
    except SpecError as error:
        raise ModelError(f"{error}; get the file again or upgrade medseg") from None


def _end(header: dict[str, Any]) -> int:
    """Where the last weight ends; they lie one behind the other, without gaps and without sharing bytes."""
    end = 0
    for start, stop in sorted(tuple(v["data_offsets"]) for k, v in header.items() if k != "__metadata__"):
        if not isinstance(stop, int) or start != end or stop < start:
            raise ValueError
        end = stop
    return end


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that occurs twice other readers may take the other value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _check_text(value: Any, depth: int = 0) -> None:
    """Refuse what no header of ours holds: control characters, which a terminal obeys, text that turns around, and depth."""
    if depth > _MAX_DEPTH:
        raise ValueError
    if isinstance(value, str) and any(unicodedata.category(c) in _UNSEEN and c not in "\n\t" for c in value):
        raise ValueError
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for one in value:
            _check_text(one, depth + 1)


def _upgraded(about: dict[str, Any], version: int) -> dict[str, Any]:
    """A header of an older version in the words of today; what is wrong with it is left for the spec to say."""
    if version < 2 and isinstance(about.get("heads"), list):
        rest = [dict(h) if isinstance(h, dict) else h for h in about["heads"]]
        pairs = [h.pop("calibration", None) for h in rest if isinstance(h, dict)]
        about = about | {"heads": rest, "spec_version": SPEC_VERSION}
        if pairs and isinstance(pairs[0], list) and len(pairs[0]) == 2:
            about["calibration"] = {"score": pairs[0][0], "offset": pairs[0][1]}
    return about


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Weights in a model file, by name, as float32.

    Raises
    ------
    ModelError
        The file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return {k: v.float() for k, v in load(path.read_bytes()).items()}
    except (SafetensorError, OSError):
        raise ModelError(f"{path.name}: the weights are damaged; get the file again") from None


def save_model(path: Path, spec: ModelSpec, weights: dict[str, torch.Tensor]) -> None:
    """Write a model file atomically: convolution weights as float16, batch statistics as float32."""
    import torch
    from safetensors.torch import save

    from medseg.ops.files import write_whole

    tensors = {
        k: v.detach().cpu().to(torch.float32 if ".running_" in k or v.ndim <= 1 else torch.float16).contiguous()
        for k, v in weights.items()
        if v.is_floating_point()
    }
    write_whole(path, save(tensors, {"medseg": spec.model_dump_json()}))


def choose_device(name: str = "auto") -> torch.device:
    """The torch device for ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises
    ------
    DeviceError
        The one asked for is not there.
    """
    import torch

    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(k for k, there in have.items() if there))
    if not have.get(name, False):
        known = ", ".join(k for k, there in have.items() if there)
        raise DeviceError(f"device {name!r} is not available here; available: auto, {known}")
    return torch.device(name)
