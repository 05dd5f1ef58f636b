"""MSCOCO for FID and CLIP-score, as usual for text-to-image models: random captions of val2014 and square crops.

"30,000 captions of MSCOCO" in papers means a random choice of val2014's 40,504 images with one caption each. Here the
choice of images and captions depends only on a seed, and the chosen images are the real set.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffdis_ms.data.make.prepare import staged, write_summary
from diffdis_ms.data.samples import read_image
from diffdis_ms.data.stream.workers import ordered_map
from diffdis_ms.data.transforms import resize_center_crop
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.text_files import read_json

ANNOTATIONS = ('annotations/captions_val2014.json', 'captions_val2014.json')
FOLDERS = ('val2014', 'images/val2014', 'images', '')
MAX_BYTES = 1 << 30


def prepare_coco_fid(src, out, count=30_000, size=256, *, seed=0, num_workers=2, overwrite=False, progress=True):
    """Write 00000.png, ... (the images: shorter side resized to `size`, centre crop), prompts.json and prompts.txt.

    Args:
        src: folder with annotations/captions_val2014.json and val2014/. out: directory; see `prepare.staged`.
        count: number of captions, each of a different image. size: pixels. seed: seed of the choice. num_workers:
            threads that decode.

    Returns:
        dict, as in summary.json: source, size, seed, num_kept, num_skipped (0), and images: {name: file, image id,
        caption id}.

    Raises:
        ConfigError: a file is missing or damaged, there are fewer than `count` images with captions, or a chosen image
            cannot be read.
    """
    if count < 1 or size < 8 or seed < 0 or num_workers < 1:
        raise ConfigError(
            f'count {count} and workers {num_workers} must be above 0, size {size} at least 8, seed {seed} not below 0'
        )
    src = Path(src)
    chosen = choose(*read_captions(src), count, seed)
    folder = next((src / f for f in FOLDERS if (src / f / chosen[0][0]).is_file()), src / FOLDERS[0])
    missing = [file for file, *_ in chosen if not (folder / file).is_file()]
    if missing:
        raise ConfigError(
            f'{folder}: {len(missing)} of the {count} images are missing ({", ".join(sorted(missing)[:3])}'
            f'{", ..." if len(missing) > 3 else ""}); extract the whole val2014.zip'
        )
    names = [f'{i:05d}.png' for i in range(count)]

    def load(i):
        return resize_center_crop(read_image(folder / chosen[i][0], chosen[i][0]), size)

    with staged(out, overwrite) as temp, ThreadPoolExecutor(num_workers) as pool:
        try:
            for i, image in tqdm(
                ordered_map(pool, load, range(count), 4 * num_workers),
                total=count,
                desc='pictures',
                disable=None if progress else True,
            ):
                image.save(temp / names[i], 'PNG')
        except BadSample as e:
            raise ConfigError(f'{folder / e.key}: {e.reason}; extract val2014.zip again') from None
        prompts = {name: caption for name, (_, _, _, caption) in zip(names, chosen, strict=True)}
        (temp / 'prompts.json').write_text(
            json.dumps({'prompts': prompts}, indent=1, ensure_ascii=False) + '\n', encoding='utf-8'
        )
        (temp / 'prompts.txt').write_text('\n'.join(prompts.values()) + '\n', encoding='utf-8')
        summary = {
            'source': 'coco-fid',
            'size': size,
            'seed': seed,
            'num_kept': count,
            'num_skipped': 0,
            'skipped': {},
            'images': {
                name: [file, image, caption] for name, (file, image, caption, _) in zip(names, chosen, strict=True)
            },
        }
        write_summary(temp, summary)
    return summary


def read_captions(src):
    """Read captions_val2014.json.

    Returns:
        ({image id: file name}, {image id: [(caption id, caption)]}). Captions are joined to one line each; blank ones
        are left out.
    """
    path = next((src / name for name in ANNOTATIONS if (src / name).is_file()), src / ANNOTATIONS[0])
    content = read_json(path, limit=MAX_BYTES)
    files, captions = {}, {}
    try:
        for image in content['images']:
            files[int(image['id'])] = str(image['file_name'])
        for row in content['annotations']:
            text = ' '.join(row['caption'].split())
            if text:
                captions.setdefault(int(row['image_id']), []).append((int(row['id']), text))
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ConfigError(
            f'{path} is not MSCOCO\'s captions file ({type(e).__name__}: {" ".join(str(e).split())[:60]})'
        ) from None
    bad = next((name for name in files.values() if Path(name).name != name or not name), None)
    if bad is not None:
        raise ConfigError(f'{path}: {bad!r} is not a file name')
    return files, {image: sorted(found) for image, found in captions.items() if image in files}


def choose(files, captions, count, seed):
    """Choose images in random order with one caption each, depending only on `seed`.

    Returns:
        [(file, image id, caption id, caption)].
    """
    images = sorted(captions)
    if count > len(images):
        raise ConfigError(f'--count {count}: there are only {len(images)} images with captions')
    rng = np.random.Generator(np.random.Philox(seed))
    rows = rng.permutation(len(images))[:count].tolist()
    places = rng.random(count).tolist()
    return [
        (files[images[row]], images[row], *captions[images[row]][int(place * len(captions[images[row]]))])
        for row, place in zip(rows, places, strict=True)
    ]
