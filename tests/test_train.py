"""Training: stopping and going on changes nothing, checkpoints are checked, and the loss falls."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medseg.errors import TrainingError
from medseg.nets.net import Net
from medseg.train import Checked, Done, Paused, Step, train
from medseg.train.loop import fingerprint, learning_rate
from medseg.train.ranks import Ranks

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def run(spec, folder):
    first, *rest = train(spec, folder, CPU, workers=0)
    assert first == Checked((), ())
    return rest


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}, [line["step"] for line in lines]


def same_weights(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# --- events


def test_events_count_steps_and_end_with_the_averaged_weights(tiny_training, tmp_path):
    spec = tiny_training()
    *steps, last = run(spec, tmp_path / "run")
    assert all(type(s) is Step for s in steps) and type(last) is Done
    assert [s.step for s in steps] == list(range(1, 13)) and {s.steps for s in steps} == {12}
    assert [s.rate for s in steps] == [learning_rate(spec, i) for i in range(1, 13)]
    terms = {"0.foreground", "0.offset", "1.foreground", "1.distance", "total"}
    for step in steps:
        assert set(step.loss) == terms
        parts = sum(v for k, v in step.loss.items() if k != "total")
        assert step.loss["total"] == pytest.approx(parts, abs=1e-4)
    assert losses(tmp_path / "run") == ({s.step: s.loss for s in steps}, list(range(1, 13)))
    assert all(w.dtype == torch.float32 and torch.isfinite(w).all() for w in last.weights.values())


def test_the_loss_falls(tiny_training, tmp_path):
    *steps, _ = run(tiny_training(steps=60, warmup=5, rate=0.02), tmp_path / "run")
    total = [s.loss["total"] for s in steps]
    assert np.mean(total[-10:]) < 0.6 * np.mean(total[:5])


def test_training_twice_gives_the_same_weights(tiny_training, tmp_path):
    one, two = (run(tiny_training(steps=4), tmp_path / name)[-1] for name in ("a", "b"))
    other = run(tiny_training(steps=4, seed=2), tmp_path / "c")[-1]
    assert same_weights(one.weights, two.weights)
    assert not same_weights(one.weights, other.weights)


def test_the_averaged_weights_follow_closely_at_first(tiny_training, tmp_path):
    spec = tiny_training(steps=1)
    torch.manual_seed(spec.seed)
    before = Net(spec.net, spec.heads).state_dict()
    averaged = run(spec, tmp_path / "run")[-1].weights
    after = load_file(tmp_path / "run" / "checkpoint.safetensors")
    for name, value in averaged.items():
        expected = before[name] * 2 / 11 + after[f"net.{name}"] * 9 / 11
        torch.testing.assert_close(value, expected)
    assert not torch.equal(averaged["heads.0.layers.0.weight"], after["net.heads.0.layers.0.weight"])


# --- stopping and going on


def test_interrupted_and_resumed_equals_uninterrupted(tiny_training, tmp_path):
    spec = tiny_training(checkpoint_minutes=1e-9)  # a checkpoint at each step
    whole = run(tiny_training(), tmp_path / "whole")[-1]
    events = train(spec, tmp_path / "cut", CPU, workers=0)
    for event in events:
        if isinstance(event, Step) and event.step == 6:
            break
    events.close()
    *rest, last = run(spec, tmp_path / "cut")
    assert [e.step for e in rest] == list(range(7, 13))
    assert same_weights(last.weights, whole.weights)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    one, two = ((tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == two  # weights, average and optimiser


def test_a_stage_ends_with_a_checkpoint_and_the_next_goes_on(tiny_training, tmp_path):
    spec = tiny_training(steps=3, stage_minutes=1e-9)
    stages = [run(spec, tmp_path / "run") for _ in range(3)]
    assert [[type(e) for e in s] for s in stages] == [[Step, Paused], [Step, Paused], [Step, Done]]
    assert [s[0].step for s in stages] == [1, 2, 3]
    assert same_weights(stages[-1][-1].weights, run(tiny_training(steps=3), tmp_path / "whole")[-1].weights)


def test_a_finished_training_is_done_at_once(tiny_training, tmp_path):
    spec = tiny_training(steps=2)
    first = run(spec, tmp_path / "run")[-1]
    (again,) = run(spec, tmp_path / "run")
    assert same_weights(first.weights, again.weights)


KILLED = """
import os, sys
from pathlib import Path
import torch
from medseg.spec import TrainSpec
from medseg.train import Step, train
torch.set_num_threads(1)
spec = TrainSpec.model_validate_json(Path(sys.argv[1]).read_text())
for event in train(spec, Path(sys.argv[2]), torch.device("cpu"), workers=int(sys.argv[4])):
    if isinstance(event, Step):
        print(event.step, flush=True)
        if event.step == int(sys.argv[3]):
            os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(tiny_training, tmp_path, workers):
    # a checkpoint every second or so: the kill falls anywhere between two, and the steps since the last are done again
    spec = tiny_training(steps=30, checkpoint_minutes=0.0005, batch=4, accumulate=2)
    whole = run(tiny_training(steps=30, batch=4, accumulate=2), tmp_path / "whole")[-1]
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    at = int(np.random.default_rng().integers(2, 29))
    program = [sys.executable, "-c", KILLED, tmp_path / "spec.json", tmp_path / "cut", str(at), str(workers)]
    done = subprocess.run([str(p) for p in program], capture_output=True, text=True)
    assert done.returncode == -9 and done.stdout.split()[-1] == str(at)
    last = run(spec, tmp_path / "cut")[-1]
    assert same_weights(last.weights, whole.weights), f"killed at step {at}"
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


# --- batches in parts and on several processes


def test_a_batch_in_parts_is_the_same_batch(tiny_training, tmp_path):
    one, two = (run(tiny_training(steps=3, batch=4, accumulate=n), tmp_path / str(n)) for n in (1, 4))
    assert [s.rate for s in one[:-1]] == [s.rate for s in two[:-1]]
    # batch statistics are those of the parts, so the losses are near and not equal
    assert one[0].loss["total"] == pytest.approx(two[0].loss["total"], rel=0.2)
    assert fingerprint(tiny_training(batch=4)) != fingerprint(tiny_training(batch=4, accumulate=2))


def test_another_split_of_the_same_name_is_refused(tiny_training, tmp_path):
    run(tiny_training(steps=2), tmp_path / "run")
    split = json.loads((tmp_path / "split.json").read_text())
    split["splits"]["cells"] |= {"train": ["p0", "p3"], "val": ["p1"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    with pytest.raises(TrainingError, match="another config"):
        run(tiny_training(steps=2), tmp_path / "run")


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_out_a_batch(world):
    shares = [Ranks(rank, world).share(3, 6, 8) for rank in range(world)]
    assert sorted(sum(shares, [])) == list(range(24, 48))
    for share in shares:  # each step's part lies in that step's batch
        for step in range(3):
            part = share[step * 8 // world : (step + 1) * 8 // world]
            assert all(24 + 8 * step <= n < 32 + 8 * step for n in part)


@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_network(tiny_training, tmp_path):
    spec = tiny_training(steps=6, batch=4)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    program = """
import sys
from pathlib import Path
import torch
from medseg.spec import TrainSpec
from medseg.train import Done, train
torch.set_num_threads(1)
spec = TrainSpec.model_validate_json(Path(sys.argv[1]).read_text())
*_, last = train(spec, Path(sys.argv[2]), torch.device("cpu"), workers=0)
assert isinstance(last, Done)
state = {k: v for k, v in last.weights.items() if ".running_" not in k}
total = torch.stack([v.double().sum() for v in state.values()])
both = [torch.zeros_like(total) for _ in range(2)]
torch.distributed.all_gather(both, total)
assert torch.equal(*both)
"""
    (tmp_path / "program.py").write_text(program)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "program.py"), str(tmp_path / "spec.json"), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path / "two")[1] == list(range(1, 7))  # one process wrote
    one = run(tiny_training(steps=6, batch=4), tmp_path / "one")
    first = losses(tmp_path / "two")[0][1]["total"]
    assert first == pytest.approx(one[0].loss["total"], rel=0.5)


def test_a_batch_that_cannot_be_shared_is_refused(tiny_training, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(TrainingError, match="batch of 2 cannot be dealt to 3 processes"):
        run(tiny_training(), tmp_path / "run")


# --- checkpoints


def test_another_config_is_refused(tiny_training, tmp_path):
    run(tiny_training(steps=2), tmp_path / "run")
    with pytest.raises(TrainingError, match="another config"):
        run(tiny_training(steps=2, rate=0.02), tmp_path / "run")
    words = tiny_training(steps=2, title="Other words", checkpoint_minutes=9, stage_minutes=9)
    assert [type(e) for e in run(words, tmp_path / "run")] == [Done]


def test_the_fingerprint_knows_what_is_learned(tiny_training):
    plain = fingerprint(tiny_training())
    assert plain == fingerprint(tiny_training(description="words", stage_minutes=1))
    for change in (
        {"seed": 9},
        {"heads": [{"kind": "flow"}, {"kind": "watershed"}]},
        {"patch": [16, 16]},
        {"heads": [{"kind": "offset", "scale": 8}]},
        {"augment": {"elastic": 1}},
    ):
        assert fingerprint(tiny_training(**change)) != plain


@pytest.mark.parametrize("damage", ["empty", "random", "truncated", "not ours"])
def test_a_damaged_checkpoint_is_a_typed_error(tiny_training, tmp_path, damage):
    spec, path = tiny_training(steps=2), tmp_path / "run" / "checkpoint.safetensors"
    run(spec, tmp_path / "run")
    if damage == "not ours":
        save_file({"a": torch.zeros(2)}, path, {"other": "{}"})
    else:
        data = path.read_bytes()
        path.write_bytes(
            {"empty": b"", "random": np.random.default_rng(0).bytes(5000)}.get(damage, data[: len(data) // 2])
        )
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors.*delete it"):
        run(spec, tmp_path / "run")


# --- refusals


def test_a_loss_that_is_not_finite_stops(tiny_training, tmp_path):
    with pytest.raises(TrainingError, match="not finite at step"):
        run(tiny_training(rate=1e30, warmup=0), tmp_path / "run")


# --- rate


def test_the_rate_rises_and_falls_to_a_hundredth(tiny_training):
    spec = tiny_training(steps=100, warmup=20, rate=0.5)
    rates = [learning_rate(spec, i) for i in range(1, 101)]
    assert rates[0] == 0.5 / 20 and rates[9] == 0.25 and rates[19] == max(rates) == 0.5
    assert (np.diff(rates[:20]) > 0).all() and (np.diff(rates[19:]) < 0).all()
    assert rates[59] == pytest.approx(0.5 * (0.01 + 0.99 * 0.5))
    assert rates[99] == pytest.approx(0.005)


def test_without_warmup_the_rate_starts_high(tiny_training):
    spec = tiny_training(steps=10, warmup=0, rate=0.5)
    assert learning_rate(spec, 1) == pytest.approx(0.5 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 10))))
