"""Draw pictures from texts."""
import argparse
import json
from pathlib import Path

from diffdis_ms.cli import run
from diffdis_ms.config import ConfigError

EXAMPLES = """examples:
  python tools/sample.py --model outputs/demo/model --prompt 'woman cook dark skin tone' 'flag of France' --out pictures --grid
  python tools/sample.py --model DIR --prompts captions.txt --sampler dpm++ --steps 20 --out pictures
"""


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True, metavar='DIR', help='model directory')
    parser.add_argument('--prompt', nargs='+', default=[], metavar='TEXT', help='one or more texts')
    parser.add_argument('--prompts', metavar='FILE', help='texts, one a line')
    parser.add_argument('--out', required=True, metavar='DIR', help='gets 00000.png, ..., prompts.json and, with --grid, grid.png')
    parser.add_argument('--steps', type=int, default=50, help='sampling steps (default: %(default)s)')
    parser.add_argument('--sampler', choices=['ddim', 'pndm', 'dpm++'], default='pndm', help='default: %(default)s')
    parser.add_argument('--guidance-weight', type=float, default=3.0,
                        help='w of classifier-free guidance; diffusers\' guidance_scale is 1 + w (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=4, help='pictures at once (default: %(default)s)')
    parser.add_argument('--grid', action='store_true', help='also all pictures on one sheet')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--device', choices=['CPU', 'Ascend'], default='CPU')
    return parser.parse_args()


def read_prompts(args):
    prompts = list(args.prompt)
    if args.prompts:
        prompts += [line.strip() for line in Path(args.prompts).read_text(encoding='utf-8').splitlines() if line.strip()]
    if not prompts:
        raise ConfigError('no text to draw: give --prompt TEXT or --prompts FILE')
    return prompts


def main():
    args = parse_args()
    prompts = read_prompts(args)
    from diffdis_ms import DiffDisPipeline, runtime
    from diffdis_ms.data.transforms import image_grid
    runtime.setup(args.device)
    pipe = DiffDisPipeline.from_pretrained(args.model, min(args.batch_size, len(prompts)))
    images = pipe.generate(prompts, args.steps, args.guidance_weight, args.sampler, args.seed, progress=True)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    names = [f'{i:05d}.png' for i in range(len(images))]
    for name, image in zip(names, images):
        image.save(out / name)
    if args.grid:
        image_grid(images).save(out / 'grid.png')
    settings = {'model': args.model, 'steps': args.steps, 'sampler': args.sampler, 'guidance_weight': args.guidance_weight, 'seed': args.seed}
    (out / 'prompts.json').write_text(json.dumps({**settings, 'prompts': dict(zip(names, prompts))}, indent=1, ensure_ascii=False) + '\n',
                                      encoding='utf-8')
    print(f'{len(images)} pictures in {out}')


if __name__ == '__main__':
    run(main)
