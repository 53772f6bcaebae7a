"""Train StarDist 2-D by its own code for so many CPU minutes on our split, and write its labels of val.

    python tests/peers/stardist_train.py CONFIG_SPLIT.json DATA_FOLDER OUTPUT --minutes 20 --seed 1

In an environment of its own (tests/peers/requirements-stardist.txt). The budget is process time: loading, training, choosing
thresholds on tune and nothing else; the rate follows half a cosine over it, so that neither training is cut short. Score the
result with ``medseg evaluate OUTPUT/labels DATA_FOLDER/labels``: val images are the ones that it holds.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

STARTED = time.process_time()

parser = argparse.ArgumentParser()
parser.add_argument("split", type=Path)
parser.add_argument("data", type=Path)
parser.add_argument("output", type=Path)
parser.add_argument("--source", default="dsb2018_fluorescence")
parser.add_argument("--minutes", type=float, default=20)
parser.add_argument("--tuning", type=float, default=200, help="seconds of the budget kept for choosing thresholds")
parser.add_argument("--seed", type=int, default=1)
given = parser.parse_args()
os.environ.update(CUDA_VISIBLE_DEVICES="", TF_CPP_MIN_LOG_LEVEL="3")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tifffile  # noqa: E402
from csbdeep.utils import normalize  # noqa: E402
from stardist import fill_label_holes  # noqa: E402
from stardist.models import Config2D, StarDist2D  # noqa: E402

threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(1)
np.random.seed(given.seed)
tf.random.set_seed(given.seed)

split = json.loads(given.split.read_text())["splits"][given.source]


def read(part):
    images = [tifffile.imread(given.data / "images" / f"{stem}.tif") for stem in split[part]]
    labels = [tifffile.imread(given.data / "labels" / f"{stem}.tif") for stem in split[part]]
    return [normalize(i, 1, 99.8) for i in images], [fill_label_holes(x) for x in labels]


def augment(x, y):
    """As in StarDist's example notebook: flips, right angles, intensity, noise."""
    for axis in range(y.ndim):
        if np.random.rand() > 0.5:
            x, y = np.flip(x, axis), np.flip(y, axis)
    if np.random.rand() > 0.5:
        x, y = x.swapaxes(0, 1), y.swapaxes(0, 1)
    x = x * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)
    return x + 0.02 * np.random.uniform(0, 1) * np.random.normal(0, 1, x.shape), y


class Budget(tf.keras.callbacks.Callback):
    """Half a cosine over the CPU time, and the end when it is over."""

    def __init__(self, rate, seconds):
        super().__init__()
        self.rate, self.seconds, self.steps = rate, seconds, 0

    def on_train_batch_begin(self, batch, logs=None):
        share = min((time.process_time() - STARTED) / self.seconds, 1.0)
        self.model.optimizer.learning_rate.assign(self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))))

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if time.process_time() - STARTED > self.seconds:
            self.model.stop_training = True
            raise StopIteration


train, tune = read("train"), read("tune")
config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=1, train_patch_size=(128, 128), train_batch_size=4)
config.train_reduce_lr = None
config.train_tensorboard = False
model = StarDist2D(config, name="stardist", basedir=str(given.output))
model.prepare_for_training()
budget = Budget(config.train_learning_rate, given.minutes * 60 - given.tuning)
model.callbacks.append(budget)
try:
    # validation of each epoch costs budget and changes nothing here: the last weights are taken, as ours are
    few = tune[0][:4], tune[1][:4]
    length = {"epochs": 100_000, "steps_per_epoch": 1000}
    model.train(*train, validation_data=few, augmenter=augment, seed=given.seed, **length)
except StopIteration:
    pass
trained = time.process_time() - STARTED
model.optimize_thresholds(*tune)
spent = time.process_time() - STARTED
folder = given.output / "labels"
folder.mkdir(parents=True, exist_ok=True)
for stem in split["val"]:
    image = normalize(tifffile.imread(given.data / "images" / f"{stem}.tif"), 1, 99.8)
    labels, details = model.predict_instances(image)
    tifffile.imwrite(folder / f"{stem}.tif", labels.astype(np.uint16))
told = {"steps": budget.steps, "trained_cpu_seconds": trained, "cpu_seconds": spent, "seed": given.seed}
told |= {"thresholds": model.thresholds._asdict()}
(given.output / "budget.json").write_text(json.dumps(told, default=float) + "\n")
sys.stdout.write(f"{told}\n")
