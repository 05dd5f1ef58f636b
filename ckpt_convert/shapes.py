"""Names and shapes of our networks' parameters, from a table for Stable Diffusion v1, otherwise from the network.

Run `python -m ckpt_convert.shapes` to write the table again when a network's parameters change.
"""

from pathlib import Path

from ckpt_convert.layouts import NETWORKS
from diffdis_ms.config import ModelConfig
from diffdis_ms.text_files import read_json

TABLE = Path(__file__).parent / 'stable_diffusion_v1.json'


def parameter_shapes(stem, config):
    """{our parameter's name: shape} of a network, without allocating the values.

    For Stable Diffusion v1 they are read from a table, because importing MindSpore and building the networks would take
    a quarter of a conversion's time. A test compares the table with the networks.
    """
    if (
        config is not None
        and stem in ('unet', 'vae', 'text_encoder')
        and all(
            getattr(config, section) == getattr(ModelConfig(), section)
            for section in ('unet', 'dual_stream', 'alignment', 'vae', 'text_encoder')
        )
    ):
        return {name: tuple(shape) for name, shape in read_json(TABLE)[stem].items()}
    return shapes_of_network(stem, config)


def shapes_of_network(stem, config):
    """{our parameter's name: shape}, from the MindSpore network itself."""
    from mindspore.nn.utils import no_init_parameters

    from diffdis_ms.models.autoencoder import AutoencoderKL
    from diffdis_ms.models.clip import CLIPImageEncoder, CLIPTextEncoder
    from diffdis_ms.models.diffdis import DiffDisUNet
    from diffdis_ms.models.inception import InceptionV3

    with no_init_parameters():
        cell = {
            'unet': lambda: DiffDisUNet(config),
            'vae': lambda: AutoencoderKL(config.vae),
            'text_encoder': lambda: CLIPTextEncoder(config.text_encoder),
            'image_encoder': lambda: CLIPImageEncoder(config.image_encoder),
            'inception': InceptionV3,
        }[stem]()
    return {p.name: tuple(p.shape) for p in cell.get_parameters()}


def write_table():
    """Write TABLE."""
    shapes = {stem: shapes_of_network(stem, ModelConfig()) for stem in NETWORKS['sd']}
    lines = [
        f' "{stem}": {{\n' + ',\n'.join(f'  "{name}": {list(shape)}' for name, shape in network.items()) + '\n }'
        for stem, network in shapes.items()
    ]
    TABLE.write_text('{\n' + ',\n'.join(lines) + '\n}\n', encoding='utf-8')


if __name__ == '__main__':
    write_table()
