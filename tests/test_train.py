"""Training: stopping and going on changes nothing, checkpoints are checked, and the loss falls."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medseg.errors import MissingError, TrainingError
from medseg.nets.net import Net
from medseg.train import Done, Paused, Step, train
from medseg.train.loop import fingerprint, learning_rate

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """The order of sums, and so the last bit of the weights, depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(spec, folder):
    return list(train(spec, folder, CPU, workers=0))


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
        if event.step == 6:
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


def test_no_cases_and_missing_files_are_typed(tiny_training, tmp_path):
    spec = tiny_training()
    (tmp_path / "data" / "labels" / "p1.tif").unlink()
    with pytest.raises(MissingError, match=r"no file p1"):
        run(spec, tmp_path / "run")
    (tmp_path / "split.json").write_text(json.dumps({"splits": {"cells": {"train": [], "tune": [], "val": []}}}))
    with pytest.raises(TrainingError, match="no training cases"):
        run(spec, tmp_path / "run")


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
