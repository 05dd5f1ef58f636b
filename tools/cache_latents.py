"""Compute latents and text features of a data set once, so that training does not run the frozen V and T."""

import argparse

from diffdis_ms.data.stream.check import write_skipped
from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run
from diffdis_ms.runtime.options import add_options, setup

EPILOG = """example:
  python tools/cache_latents.py --model models/sd --data data/cc3m --out cache/cc3m --half
  python tools/train.py --config FILE init.vae=models/sd init.text_encoder=models/sd data.cache=cache/cc3m

A run that was stopped goes on where it was. Under tools/launch.sh the processes share the work. The cache records which
weights, tokenizer, image size and data it was made from, and training refuses a cache that does not match. At 256
pixels with Stable Diffusion's V and T a pair takes 255 KB (128 KB with --half); CC3M with --half takes about 380 GB.
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', required=True, metavar='DIR', help='model directory with V, T and the tokenizer')
    parser.add_argument(
        '--text-encoder', metavar='DIR', help='model directory with T and the tokenizer, if not the one in --model'
    )
    parser.add_argument('--data', required=True, metavar='DIR', help='training data, as in data.path of tools/train.py')
    parser.add_argument('--out', required=True, metavar='DIR', help='directory of the cache')
    parser.add_argument(
        '--half', action='store_true', help='store float16: half the space; latents and features are rounded'
    )
    parser.add_argument('--image-size', type=int, metavar='N', help="image size in pixels (default: the model's)")
    parser.add_argument('--batch-size', type=int, default=32, help='images encoded at once (default: %(default)s)')
    parser.add_argument('--workers', type=int, default=2, help='threads that read and decode (default: %(default)s)')
    parser.add_argument('--min-side', type=int, default=16, help='as data.min_side in training (default: %(default)s)')
    add_options(parser)
    parser.add_argument('--seed', type=int, default=0, help='has no effect: nothing here is random')
    parser.add_argument('--overwrite', action='store_true', help='replace a cache made from other weights or data')
    args = parser.parse_args()
    for name in ('batch_size', 'workers'):
        if getattr(args, name) < 1:
            raise ConfigError(f'--{name.replace("_", "-")}: {getattr(args, name)} is below 1')

    from diffdis_ms import runtime  # only once the arguments are checked: importing MindSpore takes seconds

    world = runtime.this_world()
    precision, device = setup(args)
    from diffdis_ms.config import validate
    from diffdis_ms.data.sources.folders import open_captions
    from diffdis_ms.data.tokenizer import Tokenizer
    from diffdis_ms.models.autoencoder import AutoencoderKL
    from diffdis_ms.models.clip import CLIPTextEncoder
    from diffdis_ms.models.encoders import Encoders
    from diffdis_ms.models.precision import store_precision
    from diffdis_ms.storage.model_dir import load_weights, read_config
    from diffdis_ms.train.cache import CacheWriter, cache_key

    config = read_config(args.model)
    text_model = args.text_encoder or args.model
    config.text_encoder = read_config(text_model).text_encoder
    config.image_size = args.image_size or config.image_size
    validate(config)
    key = cache_key(args.model, text_model, config.image_size, precision, device)
    writer = CacheWriter(
        args.out,
        key,
        dtype='float16' if args.half else 'float32',
        caption_set=open_captions(args.data),
        min_side=args.min_side,
        precision=precision,
        device=device,
        num_workers=args.workers,
        world=world,
        overwrite=args.overwrite,
    )
    vae, text_encoder = AutoencoderKL(config.vae), CLIPTextEncoder(config.text_encoder)
    load_weights(vae, f'{args.model}/vae.safetensors')
    load_weights(text_encoder, f'{text_model}/text_encoder.safetensors')
    for network in (vae, text_encoder):
        store_precision(network, precision)
    encoders = Encoders(vae, text_encoder, Tokenizer.load(f'{text_model}/tokenizer'), config, args.batch_size)
    if writer.run(encoders):
        write_skipped(f'{args.out}/skipped.txt', writer.skipped)
        print(
            f'{args.out}: {len(writer.good)} samples, skipped {len(writer.skipped)}; train with data.cache={args.out}'
        )


if __name__ == '__main__':
    run(main)
