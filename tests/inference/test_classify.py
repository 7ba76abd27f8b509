import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nnunet_ext.inference.classify import (
    classify_images,
    load_classifier,
    write_probabilities,
    xray_settings,
)
from nnunet_ext.settings.uci import UCISettings
from nnunet_ext.utilities.errors import UsageError

CPU = torch.device("cpu")
FILLED_IN = {
    "num_xray_classes": 2,
    "xray_classes": ["a", "b"],
    "xray_task": "multilabel",
    "xray_mean": 0.5,
    "xray_std": 0.25,
}


def settings(**changes):
    return UCISettings.from_dict({**FILLED_IN, "xray_patch_size": [16, 24], **changes})


class MeanGrey(torch.nn.Module):
    """Logits: the mean of the normalised image, times a weight per class. Keeps what it was shown."""

    def __init__(self, weights=(1.0, -1.0)):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(weights))
        self.seen = []

    def forward(self, ct=None, *, xray=None):
        assert ct is None and not self.training
        self.seen.append(xray)
        return xray.mean((1, 2, 3))[:, None] * self.weights


@pytest.fixture
def grey_images(tmp_path):
    """Uniform images of the grey values 0, 51, ..., 255."""
    files = []
    for i in range(6):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(np.full((40, 30), 51 * i, dtype=np.uint8)).save(files[-1])
    return files


def test_probabilities_are_the_sigmoid_of_the_logits_in_input_order(grey_images):
    values = classify_images([MeanGrey()], grey_images, settings(), device=CPU, batch_size=4, quiet=True)
    logit = (np.arange(6) / 5 - 0.5) / 0.25
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, 1 / (1 + np.exp(-np.stack([logit, -logit], 1))), rtol=1e-5)


def test_multiclass_probabilities_sum_to_one(grey_images):
    values = classify_images([MeanGrey()], grey_images, settings(xray_task="multiclass"), device=CPU, quiet=True)
    logit = (np.arange(6) / 5 - 0.5) / 0.25
    np.testing.assert_allclose(values[:, 0], 1 / (1 + np.exp(-2 * logit)), rtol=1e-5)
    np.testing.assert_allclose(values.sum(1), 1, rtol=1e-6)


def test_images_reach_the_network_as_float_patches(grey_images):
    network = MeanGrey()
    classify_images([network], grey_images, settings(), device=CPU, batch_size=4, quiet=True)
    assert [tuple(batch.shape) for batch in network.seen] == [(4, 1, 16, 24), (2, 1, 16, 24)]
    assert network.seen[0].dtype == torch.float32


def test_folds_are_averaged_in_probability(grey_images):
    networks = [MeanGrey((1.0, -1.0)), MeanGrey((5.0, 0.5))]
    single = [classify_images([n], grey_images, settings(), device=CPU, quiet=True) for n in networks]
    both = classify_images(networks, grey_images, settings(), device=CPU, quiet=True)
    np.testing.assert_allclose(both, (single[0] + single[1]) / 2, rtol=1e-6)


def test_the_batch_size_does_not_matter(grey_images):
    values = [
        classify_images([MeanGrey()], grey_images, settings(), device=CPU, batch_size=b, quiet=True) for b in (1, 6, 32)
    ]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
    np.testing.assert_array_equal(values[1], values[2])
    assert classify_images([MeanGrey()], [], settings(), device=CPU, quiet=True).shape == (0, 2)


def test_every_unreadable_image_is_named(grey_images):
    grey_images[1].write_bytes(b"no image")
    grey_images[5].write_bytes(grey_images[5].read_bytes()[:40])
    network = MeanGrey()
    with pytest.raises(UsageError) as error:
        classify_images([network], grey_images, settings(), device=CPU, batch_size=2, quiet=True)
    assert str(error.value).startswith("2 of 6 images cannot be read")
    assert str(grey_images[1]) in str(error.value) and str(grey_images[5]) in str(error.value)
    assert not network.seen


@pytest.mark.parametrize(
    "block,reason",
    [({}, "num_xray_classes, xray_classes"), ({"UCITrainer": {**FILLED_IN, "ablation": "ct_only"}}, "ct_only")],
)
def test_models_without_an_xray_head_are_refused(block, reason):
    with pytest.raises(UsageError, match=f"model has no X-ray head .*{reason}"):
        xray_settings({"nnunet_ext": block}, Path("model"))


def test_the_stock_trainers_model_is_refused(trained_model):
    with pytest.raises(UsageError, match="has no X-ray head"):
        load_classifier(trained_model, (0,), "checkpoint_final.pth")
    with pytest.raises(UsageError, match=r"model folder .*absent does not exist"):
        load_classifier(trained_model / "absent", (0,), "checkpoint_final.pth")


def test_probabilities_are_written_row_by_row(tmp_path):
    names = ["x,1.png", "b.png"]
    write_probabilities(tmp_path / "p.csv", names, ["No Finding", "b"], np.array([[0.25, 1], [1e-7, 0.123456789]]))
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["image", "No Finding", "b"], ["x,1.png", "0.25", "1"], ["b.png", "1e-07", "0.123457"]]
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
