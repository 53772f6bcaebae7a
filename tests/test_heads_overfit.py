"""Every head learns four images by heart: nearly all objects come back from the trained network's own maps."""

import numpy as np
import pytest
import torch

from medseg import heads
from medseg.metrics import Counts, match, overlap
from medseg.nets.net import Net
from medseg.spec import HEAD_SPECS, NetSpec
from medseg.testing import phantoms

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

FIELDS = {2: ((64, 64), 8, 7.0), 3: ((20, 40, 40), 4, 5.0)}
STEPS = {2: 200, 3: 300}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", sorted(HEAD_SPECS))
def test_four_images_are_learned_by_heart(kind, ndim):
    spec = HEAD_SPECS[kind]()
    head, (shape, count, radius) = heads.make(spec), FIELDS[ndim]
    touching = kind != "semantic"  # which cannot tell touching objects apart
    labels = [phantoms.blobs(shape, count if touching else 3, radius, seed, touching) for seed in range(4)]
    targets = [head.targets(one, None, (1.0,) * ndim) for one in labels]
    truth = [{k: torch.from_numpy(np.stack([t[k] for t in targets])) for k in targets[0]}]
    images = torch.from_numpy(np.stack([phantoms.image_of(one, seed)[None] for seed, one in enumerate(labels)]))
    torch.manual_seed(0)
    net = Net(NetSpec(ndim=ndim, filters=(12, 24, 48)), (spec,)).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS[ndim])
    for _ in range(STEPS[ndim]):
        optimiser.zero_grad()
        torch.stack(list(net.loss(net(images, truth), truth).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    with torch.inference_mode():
        maps = net.eval()(images)[0].numpy()
    total = Counts(0, 0, 0, 0.0)
    for one, own in zip(labels, maps, strict=True):
        total += match(overlap(one, head.decode(own, (1.0,) * ndim).paint()[0]), 0.5)[0]
    assert total.ap >= 0.95, total
