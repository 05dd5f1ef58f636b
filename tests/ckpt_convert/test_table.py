"""The table of Stable Diffusion v1's parameters is what the networks say."""

import json

import pytest

from ckpt_convert.layouts import NETWORKS
from ckpt_convert.shapes import TABLE, shapes_of_network
from diffdis_ms.config import ModelConfig


@pytest.mark.parametrize('stem', NETWORKS['sd'])
def test_table_equals_the_networks(stem):
    """If this fails after a change of a network: python -m ckpt_convert.shapes"""
    written = {name: tuple(shape) for name, shape in json.loads(TABLE.read_text())[stem].items()}
    assert list(written.items()) == list(shapes_of_network(stem, ModelConfig()).items())
