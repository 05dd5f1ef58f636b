"""Convert checkpoints of Stable Diffusion and CLIP to model directories and back.

It does not need torch, and it never executes code from a file.
"""

import argparse
from collections import Counter

from diffdis_ms.runtime.cli import run

EXAMPLES = """examples:
  python -m ckpt_convert inspect sd-v1-1.ckpt
  python -m ckpt_convert import --src sd-v1-1.ckpt --text-encoder ViT-L-14.pt --vocab bpe_simple_vocab_16e6.txt.gz \\
      --dst models/sd
  python -m ckpt_convert import --src stable-diffusion-v1-4/ --text-encoder clip-vit-large-patch14/ --dst models/sd
  python -m ckpt_convert import --src clip-vit-base-patch32/ --dst models/clip-b32
  python -m ckpt_convert import --src pt_inception-2015-12-05-6726825d.pth --dst models/inception
  python -m ckpt_convert verify --src sd-v1-1.ckpt --dst models/sd
  python -m ckpt_convert export --src outputs/run/model --dst exported --format diffusers
"""


def parse_args():
    parser = argparse.ArgumentParser(
        prog='python -m ckpt_convert',
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    text = 'show what a checkpoint contains and what would be converted, without writing anything'
    inspect = commands.add_parser('inspect', help=text, description=text)
    inspect.add_argument(
        'path', metavar='PATH', help='file (.ckpt .pt .pth .bin .safetensors .index.json) or directory'
    )
    inspect.add_argument('--tensors', action='store_true', help='list every tensor')
    text = 'convert a checkpoint to a model directory'
    imports = commands.add_parser('import', help=text, description=text)
    imports.add_argument(
        '--src',
        required=True,
        metavar='PATH',
        help='CompVis file, diffusers directory, CLIP file or directory, Inception file',
    )
    imports.add_argument('--dst', required=True, metavar='DIR', help='model directory to write')
    imports.add_argument(
        '--kind',
        choices=['auto', 'sd', 'diffusers', 'clip', 'inception'],
        default='auto',
        help='kind of model that PATH must contain (default: %(default)s)',
    )
    imports.add_argument(
        '--text-encoder',
        metavar='PATH',
        help='CLIP ViT-L/14, for the text projection that Stable Diffusion\'s files do not have',
    )
    imports.add_argument(
        '--vocab',
        metavar='PATH',
        help='bpe_simple_vocab_16e6.txt.gz or a Hugging Face tokenizer directory, if the checkpoint has no tokenizer',
    )
    imports.add_argument(
        '--dtype',
        choices=['float32', 'float16', 'source'],
        help='type of the written weights (default: float32; for an export of this package: source)',
    )
    imports.add_argument(
        '--ema',
        action='store_true',
        help='use the EMA weights of a CompVis file\'s UNet (model_ema.*) instead of its last weights',
    )
    imports.add_argument(
        '--set',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='settings that the weights do not tell, e.g. unet.num_attention_heads=8, text_encoder.hidden_act=gelu',
    )
    imports.add_argument(
        '--allow-unmapped',
        action='store_true',
        help='leave out tensors that the model has no place for; without this option they are an error',
    )
    imports.add_argument('--overwrite', action='store_true', help='replace an existing model directory at DIR')
    text = 'convert a model directory to files for diffusers or in CompVis layout'
    exports = commands.add_parser('export', help=text, description=text)
    exports.add_argument('--src', required=True, metavar='DIR', help='model directory')
    exports.add_argument('--dst', required=True, metavar='DIR', help='directory to write')
    exports.add_argument(
        '--format',
        required=True,
        choices=['diffusers', 'ldm'],
        help='diffusers: pipeline directory; ldm: CompVis names in model.safetensors',
    )
    exports.add_argument('--overwrite', action='store_true', help='replace an earlier export at DIR')
    text = 'read a checkpoint and its model directory again and compare every tensor'
    verifies = commands.add_parser('verify', help=text, description=text)
    verifies.add_argument('--src', required=True, metavar='PATH', help='the checkpoint that was converted')
    verifies.add_argument('--dst', required=True, metavar='DIR', help='the model directory')
    verifies.add_argument('--text-encoder', metavar='PATH', help='as for import (default: the path in manifest.json)')
    verifies.add_argument(
        '--forward',
        action='store_true',
        help='also compare the networks\' outputs with diffusers\' and transformers\' (needs torch)',
    )
    for command in (imports, verifies):
        command.add_argument(
            '--seed',
            type=int,
            default=0,
            help='seed of new parameters, or of the inputs of --forward (default: %(default)s)',
        )
    return parser.parse_args()


def do_inspect(args):
    from ckpt_convert.source import open_source
    from diffdis_ms.storage.tensors import short

    source = open_source(args.path)
    print(f'{source.path}: {source.kind}, {source.layout} layout, {source.format}')
    for stem, network in source.networks.items():
        kinds = Counter(t.kind for t in network.tensors.values())
        count = sum(t.size for t in network.tensors.values())
        size = sum(t.nbytes for t in network.tensors.values())
        print(
            f'  {stem:14} {len(network.tensors):5} tensors {count:14,} parameters {size / 1e9:8.3f} GB  '
            + ', '.join(f'{n} {k}' for k, n in kinds.most_common())
        )
        for name, t in network.tensors.items() if args.tensors else ():
            print(f'    {network.where}{name} {t.kind} {list(t.shape)}')
    for reason, count in Counter(source.unused.values()).most_common():
        print(f'  not converted  {count:5} tensors: {reason}')
    for name, content in source.configs().items():
        said = ', '.join(f'{key} {value}' for key, value in content.items() if not key.startswith('_'))
        print(f'  config         {name}: {short(said, 300)}')
    print(f'  tokenizer      {source.tokenizer or "not in the checkpoint"}')
    from ckpt_convert.report import inspect_plan

    for line in inspect_plan(source):
        print(line)


def do_import(args):
    from ckpt_convert.convert import convert

    done = convert(
        args.src,
        args.dst,
        kind=args.kind,
        text_encoder=args.text_encoder,
        vocab=args.vocab,
        dtype=args.dtype,
        ema=args.ema,
        seed=args.seed,
        overrides=args.set,
        allow_unmapped=args.allow_unmapped,
        overwrite=args.overwrite,
    )
    print(
        f'{args.dst}: {done["tensors"]} tensors converted, {done["parameters"]:,} parameters, {done["bytes"] / 1e9:.3f}'
        f' GB, {done["seconds"]:.1f} s'
    )
    for reason, count in Counter(done['unused'].values()).most_common():
        print(f'  not converted: {count} tensors: {reason}')
    for line in done['assumed']:
        print(f'  assumed: {line}')
    if done['initialized']:
        heads = Counter('dual_stream' if '.dual_stream.' in n else n.partition('.')[0] for n in done['initialized'])
        print(f'  initialised (seed {args.seed}): ' + ', '.join(f'{head} ({n} tensors)' for head, n in heads.items()))


def do_export(args):
    from ckpt_convert.export import export

    done = export(args.src, args.dst, args.format, args.overwrite)
    print(f'{args.dst}: {done["tensors"]} tensors, {done["bytes"] / 1e9:.3f} GB in {args.format} layout')


def do_verify(args):
    from ckpt_convert.verify import verify

    done = verify(args.src, args.dst, args.text_encoder)
    print(
        f'{args.dst} is {args.src}: {done["tensors"]} tensors equal, {done["unused"]} accounted for as not converted, '
        f'{done["initialized"]} equal to their initialisation, sha256 of {done["files"]} files correct'
    )
    if args.forward:
        from ckpt_convert.forward import compare

        for what, error in compare(args.src, args.dst, args.seed):
            print(f'  {what}: relative difference {error:.1e}')


def main():
    args = parse_args()
    return {'inspect': do_inspect, 'import': do_import, 'export': do_export, 'verify': do_verify}[args.command](args)


if __name__ == '__main__':
    run(main)
