"""What a head's torch half must do: the half of `medseg.testing.heads.HeadContract` that trains."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medseg import heads
from medseg.metrics import match, overlap
from medseg.nets import heads as modules
from medseg.nets.net import Net
from medseg.spec import HeadBase, NetSpec
from medseg.testing import phantoms

FILTERS = (8, 16, 32)
SHAPES = {2: (32, 32), 3: (16, 20, 20)}
both_dimensions = pytest.mark.parametrize("ndim", [2, 3])


class LearnContract:
    """See `medseg.testing.heads.HeadContract`."""

    spec: ClassVar[HeadBase]
    separates_touching: ClassVar[bool] = True
    overfit_steps: ClassVar[int] = 80
    overfit_rate: ClassVar[float] = 0.01

    def module(self, ndim: int) -> modules.HeadModule:
        """The torch half, freshly initialised from a fixed seed."""
        torch.manual_seed(0)
        module: modules.HeadModule = modules.make(self.spec, ndim, FILTERS)  # type: ignore[assignment]
        return module

    def features(self, ndim: int) -> list[Tensor]:
        """A batch of two of what a backbone gives, finest level first."""
        draw = torch.Generator().manual_seed(0)
        return [
            torch.randn((2, width, *(n >> level for n in SHAPES[ndim])), generator=draw)
            for level, width in enumerate(FILTERS)
        ]

    def truth(self, ndim: int, ignore: bool = False, empty: bool = False) -> dict[str, Tensor]:
        """A batch of two phantoms; with `ignore` the left half of both is not annotated."""
        shape = SHAPES[ndim]
        ignored = np.zeros(shape, dtype=bool)
        ignored[..., : shape[-1] // 2] = ignore
        batch = []
        for seed in range(2):
            labels = phantoms.blobs(shape, 2, 2.5, seed, self.separates_touching)
            batch.append(heads.make(self.spec).targets(labels * (not empty), ignored, (1.0,) * ndim))
        return {k: torch.from_numpy(np.stack([one[k] for one in batch])) for k in batch[0]}

    def perfect(self, truth: dict[str, Tensor]) -> Tensor:
        """The maps that say exactly what the truth says."""
        head, count = heads.make(self.spec), len(truth["weight"])
        return torch.from_numpy(
            np.stack([head.perfect({k: v[i].numpy() for k, v in truth.items()}) for i in range(count)])
        )

    def total(self, ndim: int, maps: Tensor, truth: dict[str, Tensor]) -> float:
        """Summed loss of some maps."""
        return sum(float(term) for term in self.module(ndim).loss(maps, truth).values())

    @both_dimensions
    def test_maps_have_the_channels_that_decoding_wants(self, ndim: int) -> None:
        maps = self.module(ndim)(self.features(ndim))
        assert maps.shape == (2, heads.make(self.spec).channels(ndim), *SHAPES[ndim])

    @both_dimensions
    @pytest.mark.parametrize("kind", ["objects", "nothing", "all ignored"])
    def test_loss_is_finite_scalars(self, ndim: int, kind: str) -> None:
        truth = self.truth(ndim, empty=kind == "nothing")
        if kind == "all ignored":
            truth["weight"] = torch.zeros_like(truth["weight"])
        for size in (0.0, 1.0, 50.0):
            maps = size * torch.randn(self.perfect(truth).shape, generator=torch.Generator().manual_seed(1))
            terms = self.module(ndim).loss(maps, truth)
            assert terms
            assert all(term.ndim == 0 and torch.isfinite(term) and term >= 0 for term in terms.values())

    @both_dimensions
    def test_perfect_maps_cost_little(self, ndim: int) -> None:
        truth = self.truth(ndim)
        perfect = self.perfect(truth)
        nothing = self.total(ndim, torch.zeros_like(perfect), truth)
        assert self.total(ndim, perfect, truth) < 0.05 * nothing

    @both_dimensions
    def test_every_parameter_learns(self, ndim: int) -> None:
        module = self.module(ndim)
        truth = self.truth(ndim)
        terms = module.loss(module(self.features(ndim), truth), truth)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        assert isinstance(module, nn.Module)
        still = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
        assert not still

    @both_dimensions
    def test_ignored_voxels_cost_nothing(self, ndim: int) -> None:
        truth = self.truth(ndim, ignore=True)
        maps = torch.randn(self.perfect(truth).shape, generator=torch.Generator().manual_seed(2))
        half = SHAPES[ndim][-1] // 2
        there, here = maps.clone(), maps.clone()
        there[..., :half] *= -3
        here[..., half:] *= -3
        assert self.total(ndim, there, truth) == pytest.approx(self.total(ndim, maps, truth), rel=1e-6)
        assert self.total(ndim, here, truth) != pytest.approx(self.total(ndim, maps, truth), rel=1e-3)

    @pytest.mark.parametrize("ndim", [2, pytest.param(3, marks=pytest.mark.slow)])
    def test_a_tiny_net_learns_one_image_by_heart(self, ndim: int) -> None:
        shape, spacing = {2: (64, 64), 3: (16, 24, 24)}[ndim], (1.0,) * ndim
        labels = phantoms.blobs(shape, {2: 8, 3: 2}[ndim], {2: 7.0, 3: 4.0}[ndim], 5, self.separates_touching)
        head = heads.make(self.spec)
        truth = [{k: torch.from_numpy(v)[None] for k, v in head.targets(labels, None, spacing).items()}]
        image = torch.from_numpy(phantoms.image_of(labels, 5))[None, None]
        torch.manual_seed(0)
        net = Net(NetSpec(ndim=ndim, filters=FILTERS), (self.spec,)).train()  # type: ignore[arg-type]
        optimiser = torch.optim.Adam(net.parameters(), lr=self.overfit_rate)
        for _ in range(self.overfit_steps * (ndim - 1)):
            optimiser.zero_grad()
            terms = net.loss(net(image, truth), truth)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.inference_mode():
            maps = net.eval()(image)[0][0].numpy()
        counts, _ = match(overlap(labels, head.decode(maps, spacing).paint()[0]), 0.5)
        assert counts.ap >= 0.9
