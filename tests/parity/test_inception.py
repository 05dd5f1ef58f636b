"""FID's Inception against torch-fidelity's, with random weights: nothing is downloaded."""

import numpy as np
import pytest
import torch
from mindspore import Tensor

from diffdis_ms.models.inception import AveragePool, InceptionV3
from tests.helpers import normal, randomize
from tests.parity.weights import check, copy_to_torch, relative_error, settle_batch_norms, to_torch, torch_name
from tests.parity.without_torchvision import import_part

FeatureExtractorInceptionV3 = import_part('torch_fidelity.feature_extractor_inceptionv3').FeatureExtractorInceptionV3


@pytest.mark.parametrize('size', [(8, 8), (17, 35)])
def test_average_pool_counts_no_padding(size):
    x = normal(0, 2, 3, *size)
    expected = torch.nn.functional.avg_pool2d(to_torch(x), 3, 1, 1, count_include_pad=False)
    assert relative_error(AveragePool()(x), expected) <= 1e-6


def test_inception(tmp_path):
    cell = randomize(InceptionV3(), 0)
    weights = {torch_name(name): to_torch(p) for name, p in cell.parameters_and_names()}
    torch.save(weights, tmp_path / 'weights.pth')  # a file in the layout of the published one
    module = copy_to_torch(
        FeatureExtractorInceptionV3('inception', ['2048', 'logits_unbiased'], str(tmp_path / 'weights.pth')), cell
    )
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 299, 299), np.uint8)
    settle_batch_norms(cell, module, torch.from_numpy(pixels))
    with torch.no_grad():
        features, logits = module(torch.from_numpy(pixels))  # its resize to 299 x 299 is the identity
    assert relative_error(features[:1], features[1:]) > 0.02  # the network tells pictures apart
    ours = cell(Tensor((pixels.astype(np.float32) - 128) / 128))
    check('features', ours[0], features, 1e-4)
    check('logits', ours[1], logits, 1e-4)
