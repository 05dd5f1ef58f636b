"""Generate images from texts."""

import argparse
import json
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from diffdis_ms.diffusion.process import starting_noise
from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run
from diffdis_ms.runtime.options import add_options, setup
from diffdis_ms.storage.files import whole_file
from diffdis_ms.text_files import read_json, read_lines

EXAMPLES = """examples:
  python tools/sample.py --model outputs/demo/model --prompt 'woman cook dark skin tone' 'flag of France' \\
      --out pictures --grid
  python tools/sample.py --model DIR --prompts captions.txt --sampler dpm++ --steps 20 --out pictures
  python tools/sample.py --model DIR --prompts coco-fid/prompts.json --out pictures
      each image gets the name that the file gives its text, the same as the real image's
  msrun --worker_num=8 --local_worker_num=8 --join=True tools/sample.py --model DIR --prompts coco30k.txt \\
      --batch-size 16 --device Ascend --out pictures
      eight processes share the texts; started again after a crash, the command generates what is missing
"""


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', required=True, metavar='DIR', help='model directory')
    parser.add_argument('--prompt', nargs='+', default=[], metavar='TEXT', help='one or more texts')
    parser.add_argument(
        '--prompts', metavar='FILE', help='file with one text per line, or a .json with {"prompts": {image name: text}}'
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help='directory for 00000.png, ..., prompts.json and, with --grid, grid.png',
    )
    parser.add_argument('--steps', type=int, default=50, help='sampling steps (default: %(default)s)')
    parser.add_argument('--sampler', choices=['ddim', 'pndm', 'dpm++'], default='pndm', help='default: %(default)s')
    parser.add_argument(
        '--guidance-weight',
        type=float,
        default=3.0,
        help='w of classifier-free guidance; diffusers\' guidance_scale is 1 + w (default: %(default)s)',
    )
    parser.add_argument('--batch-size', type=int, default=4, help='images generated at once (default: %(default)s)')
    parser.add_argument('--grid', action='store_true', help='also write grid.png with all images')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    add_options(parser)
    return parser.parse_args()


def read_prompts(args):
    """Read the texts as {image name: text}. The names are those of a .json, or 00000.png, ... in the given order.

    Raises:
        ConfigError: no text, a file that cannot be used, or names and numbers mixed.
    """
    prompts = list(args.prompt)
    if args.prompts and Path(args.prompts).suffix.lower() == '.json':
        from diffdis_ms.evaluate.pictures import read_prompts as read_named

        if prompts:
            raise ConfigError(f'--prompt and --prompts {args.prompts}: a .json of texts cannot be combined with others')
        named = read_named(args.prompts)
        if 'grid.png' in named or len({name.lower() for name in named}) < len(named):
            raise ConfigError(f'{args.prompts}: an image is called grid.png, or two names differ only in case')
        blank = [name for name, text in named.items() if not text.strip()]
        if blank:
            raise ConfigError(f'{args.prompts}: the text of {blank[0]} is blank ({len(blank)} blank texts)')
        return named
    if args.prompts:
        lines = [line.strip() for line in read_lines(args.prompts)]
        blank = [i for i, line in enumerate(lines, 1) if not line]
        if blank:
            print(
                f'{args.prompts}: {len(blank)} of {len(lines)} lines are blank, the first is line {blank[0]}; they '
                'get no image and no number',
                file=sys.stderr,
            )
        prompts += filter(None, lines)
    if any('\ud800' <= c <= '\udfff' for text in prompts for c in text):
        raise ConfigError('--prompt: a text is not UTF-8')
    if not prompts:
        raise ConfigError('no text: give --prompt TEXT or --prompts FILE')
    return {f'{i:05d}.png': text for i, text in enumerate(prompts)}


def settle(out, prompts, settings, world):
    """Write prompts.json, or check that an existing one asks for the same images.

    Args:
        prompts: {image name: text}. settings: everything that determines the images, with the hashes of the model's
            files as `files_sha256`. `model`, its path, is not compared.

    Raises:
        ConfigError: the directory holds images of other texts, settings or weights, or its prompts.json is damaged.
    """
    wanted, file = {**settings, 'prompts': prompts}, out / 'prompts.json'
    out.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        found = read_json(file)
        way_out = f'choose another --out, or remove {file} with its pictures'
        if 'files_sha256' not in found:
            raise ConfigError(
                f'{file} does not say which weights its images were made with (an '
                f'earlier version may have written it): {way_out}'
            )
        other = [key for key in wanted if key != 'model' and found.get(key) != wanted[key]]
        if other:
            words = {'files_sha256': 'model files', 'prompts': 'texts'}
            raise ConfigError(f'{file} belongs to other {", ".join(words.get(key, key) for key in other)}: {way_out}')
        return
    strange = next((name for name in prompts if (out / name).exists()), None)
    if strange is not None:
        raise ConfigError(
            f'{out / strange} exists already, but there is no prompts.json that tells its text and '
            'weights: choose another --out, or remove it'
        )
    if world.first:
        with whole_file(file) as f:
            f.write((json.dumps(wanted, indent=1, ensure_ascii=False) + '\n').encode())


def draw(pipe, args, out, names, prompts, world):
    """Generate the images that are missing in this process's share of the batches.

    A batch always has the same texts, so that each image is the same for any number of processes.
    """
    rows = [
        list(range(start, min(start + args.batch_size, len(names)))) for start in range(0, len(names), args.batch_size)
    ]
    missing = [batch for batch in world.share(rows) if not all((out / names[i]).is_file() for i in batch)]
    for batch in tqdm(missing, desc='batches', disable=None if len(missing) > 1 else True):
        filled = batch + batch[-1:] * (min(args.batch_size, len(names)) - len(batch))  # one shape, one graph
        images = pipe.generate(
            [prompts[i] for i in filled],
            args.steps,
            args.guidance_weight,
            args.sampler,
            latents=starting_noise(filled, args.seed, pipe.latent_shape),
            progress=len(missing) == 1,
        )
        for i, image in zip(batch, images[: len(batch)], strict=True):
            with whole_file(out / names[i]) as f:
                image.save(f, 'PNG')
    return len(missing)


def main():
    args = parse_args()
    named = read_prompts(args)
    names, prompts = list(named), list(named.values())
    if args.batch_size < 1:
        raise ConfigError(f'--batch-size: {args.batch_size} is below 1')
    from diffdis_ms import DiffDisPipeline, runtime
    from diffdis_ms.data.transforms import image_grid
    from diffdis_ms.storage.model_dir import file_hashes

    precision, device = setup(args)
    world = runtime.this_world()
    pipe = DiffDisPipeline.from_pretrained(args.model, min(args.batch_size, len(prompts)), precision)
    out = Path(args.out)
    settle(
        out,
        named,
        {
            'model': args.model,
            'files_sha256': file_hashes(args.model),
            'steps': args.steps,
            'sampler': args.sampler,
            'guidance_weight': args.guidance_weight,
            'seed': args.seed,
            'precision': precision,
            'device': device,
        },
        world,
    )
    draw(pipe, args, out, names, prompts, world)
    if args.grid and all((out / name).is_file() for name in names):  # only true for the process that ends last
        image_grid([Image.open(out / name) for name in names]).save(out / 'grid.png')
    print(f'{sum((out / name).is_file() for name in names)} of {len(names)} images in {out}')


if __name__ == '__main__':
    run(main)
