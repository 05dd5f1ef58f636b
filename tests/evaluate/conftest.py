"""Random weights of the networks that measure."""

import pytest
from safetensors.numpy import save_file

from diffdis_ms.data.tokenizer import train_tokenizer
from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
from diffdis_ms.models.inception import InceptionV3
from diffdis_ms.models.names import field_name
from diffdis_ms.storage.model_dir import parameters_to_numpy, save_model
from tests.helpers import make_tiny_config, randomize


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    """A file of random weights with the published names."""
    path = tmp_path_factory.mktemp('weights') / 'pt_inception.safetensors'
    save_file({field_name(n): p.asnumpy() for n, p in randomize(InceptionV3(), 0).parameters_and_names()}, path)
    return path


@pytest.fixture(scope='session')
def clip(tmp_path_factory):
    """A tiny CLIP directory."""
    folder, config = tmp_path_factory.mktemp('clip'), make_tiny_config()
    config.text_encoder.vocab_size = 516
    tokenizer = train_tokenizer(['red square blue frame'] * 3, 516, folder / 'tokenizer')
    save_model(
        folder / 'clip',
        config,
        {
            'text_encoder': parameters_to_numpy(randomize(CLIPTextEncoder(config.text_encoder), 0)),
            'image_encoder': parameters_to_numpy(randomize(CLIPImageEncoder(config.image_encoder), 1)),
        },
        tokenizer,
    )
    return folder / 'clip'
