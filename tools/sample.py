"""Draw pictures from texts."""
import argparse
import json
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from diffdis_ms.cli import run
from diffdis_ms.config import ConfigError
from diffdis_ms.diffusion.process import starting_noise
from diffdis_ms.files import whole_file

EXAMPLES = """examples:
  python tools/sample.py --model outputs/demo/model --prompt 'woman cook dark skin tone' 'flag of France' --out pictures --grid
  python tools/sample.py --model DIR --prompts captions.txt --sampler dpm++ --steps 20 --out pictures
  msrun --worker_num=8 --local_worker_num=8 --join=True tools/sample.py --model DIR --prompts coco30k.txt --batch-size 16 --device Ascend --out pictures
      eight processes share the texts; started again after a crash, it draws what is missing
"""


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True, metavar='DIR', help='model directory')
    parser.add_argument('--prompt', nargs='+', default=[], metavar='TEXT', help='one or more texts')
    parser.add_argument('--prompts', metavar='FILE', help='texts, one a line, or a prompts.json')
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
    if args.prompts and args.prompts.lower().endswith('.json'):
        from diffdis_ms.evaluate.pictures import read_prompts as read_file
        prompts += read_file(args.prompts).values()
    elif args.prompts:
        prompts += [line.strip() for line in Path(args.prompts).read_text(encoding='utf-8').splitlines() if line.strip()]
    if not prompts:
        raise ConfigError('no text to draw: give --prompt TEXT or --prompts FILE')
    return prompts


def settle(out, names, prompts, settings, rank):
    """Write prompts.json, or check that the one that is there asks for the same pictures.

    Raises:
        ConfigError: the directory holds pictures of other texts or settings.
    """
    wanted = {**settings, 'prompts': dict(zip(names, prompts))}
    file = out / 'prompts.json'
    out.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        try:
            same = json.loads(file.read_text(encoding='utf-8')) == wanted
        except ValueError:
            same = False
        if not same:
            raise ConfigError(f'{file} belongs to other texts or settings: choose another --out, or remove it with its pictures')
    elif rank == 0:
        with whole_file(file) as f:
            f.write((json.dumps(wanted, indent=1, ensure_ascii=False) + '\n').encode())


def draw(pipe, args, out, names, prompts, rank, size):
    """Draw what is not there yet: every size-th batch, always of the same texts, so that each picture is the same for any number of processes."""
    rows = [list(range(start, min(start + args.batch_size, len(names)))) for start in range(0, len(names), args.batch_size)]
    missing = [batch for batch in rows[rank::size] if not all((out / names[i]).is_file() for i in batch)]
    for batch in tqdm(missing, desc='batches', disable=None if len(missing) > 1 else True):
        filled = batch + batch[-1:] * (min(args.batch_size, len(names)) - len(batch))            # one graph draws every batch
        images = pipe.generate([prompts[i] for i in filled], args.steps, args.guidance_weight, args.sampler,
                               latents=starting_noise(filled, args.seed, pipe.latent_shape), progress=len(missing) == 1)
        for i, image in zip(batch, images):
            with whole_file(out / names[i]) as f:
                image.save(f, 'PNG')
    return len(missing)


def main():
    args = parse_args()
    prompts = read_prompts(args)
    if args.batch_size < 1:
        raise ConfigError(f'--batch-size: {args.batch_size} is below 1')
    from diffdis_ms import DiffDisPipeline, runtime
    from diffdis_ms.data.transforms import image_grid
    runtime.setup(args.device)
    rank, size = runtime.rank_and_size()
    pipe = DiffDisPipeline.from_pretrained(args.model, min(args.batch_size, len(prompts)))
    out, names = Path(args.out), [f'{i:05d}.png' for i in range(len(prompts))]
    settle(out, names, prompts, {'model': args.model, 'steps': args.steps, 'sampler': args.sampler, 'guidance_weight': args.guidance_weight,
                                 'seed': args.seed}, rank)
    draw(pipe, args, out, names, prompts, rank, size)
    if args.grid and all((out / name).is_file() for name in names):              # the last process to end finds all
        image_grid([Image.open(out / name) for name in names]).save(out / 'grid.png')
    print(f'{sum((out / name).is_file() for name in names)} of {len(names)} pictures in {out}')


if __name__ == '__main__':
    run(main)
