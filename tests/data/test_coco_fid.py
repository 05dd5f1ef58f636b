"""tools/prepare_data.py coco-fid: which captions are chosen, their pictures, and what is refused."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from diffdis_ms.data.make.coco_fid import choose, prepare_coco_fid, read_captions
from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.pictures import list_images
from diffdis_ms.evaluate.pictures import read_captions as captions_of_pictures
from tests.data.report_sets import number_of, picture
from tests.data.test_prepare_data import call
from tools.sample import read_prompts

COUNT = 10


@pytest.fixture
def coco(tmp_path):
    """Ten pictures with five captions each, one more without."""
    src = tmp_path / 'coco'
    (src / 'annotations').mkdir(parents=True)
    (src / 'val2014').mkdir()
    images, annotations = [], []
    for i in range(COUNT + 1):
        name = f'COCO_val2014_{i:012d}.jpg'
        images.append({'id': 1000 + 7 * i, 'file_name': name, 'width': 64, 'height': 48})
        wide = Image.new('RGB', (96, 32), 'black')
        wide.paste(picture(i), (32, 0))  # only the centre has the colour
        wide.save(src / 'val2014' / name, quality=95)
        if i < COUNT:
            annotations += [
                {'image_id': 1000 + 7 * i, 'id': 5 * i + k, 'caption': f' picture {i},\n caption {k} '}
                for k in range(5)
            ]
    (src / 'annotations' / 'captions_val2014.json').write_text(
        json.dumps({'images': images, 'annotations': annotations[::-1], 'info': {}})
    )
    return src


def test_captions_and_square_pictures(coco, tmp_path):
    done = call('coco-fid', '--src', coco, '--out', tmp_path / 'out', '--count', 6, '--size', 16, '--seed', 3)
    assert done.returncode == 0 and '6 captions' in done.stdout and done.stderr == '', done.stderr
    paths = list_images(tmp_path / 'out')
    assert [p.name for p in paths] == [f'0000{i}.png' for i in range(6)]
    captions = captions_of_pictures(tmp_path / 'out' / 'prompts.json', paths)
    for path, caption in zip(paths, captions, strict=True):
        image = Image.open(path)
        assert (
            image.size == (16, 16)
            and image.format == 'PNG'
            and caption.startswith(f'picture {number_of(image)}, caption ')
        )
        assert np.asarray(image).std((0, 1)).max() < 40  # the centre, not the whole squashed
    named = {path.name: caption for path, caption in zip(paths, captions, strict=True)}
    for file in ('prompts.json', 'prompts.txt'):
        assert read_prompts(SimpleNamespace(prompt=[], prompts=str(tmp_path / 'out' / file))) == named
    again = prepare_coco_fid(coco, tmp_path / 'again', 6, 16, seed=3, progress=False)
    assert again['images'] == json.loads((tmp_path / 'out' / 'summary.json').read_text())['images']
    for path in paths:
        assert path.read_bytes() == (tmp_path / 'again' / path.name).read_bytes()


def test_each_picture_once_any_of_its_captions(coco):
    files, captions = read_captions(coco)
    assert len(files) == 11 and len(captions) == COUNT and captions[1000][0] == (0, 'picture 0, caption 0')
    rows = [row for seed in range(200) for row in choose(files, captions, COUNT, seed)]
    assert all(len({image for _, image, *_ in rows[i : i + COUNT]}) == COUNT for i in range(0, len(rows), COUNT))
    assert (
        min(Counter(caption for *_, caption, _ in rows).values()) > 15
        and len({caption for *_, caption, _ in rows}) == 50
    )
    assert len({tuple(choose(files, captions, 4, seed)) for seed in range(50)}) == 50
    assert min(Counter(choose(files, captions, 1, seed)[0][1] for seed in range(300)).values()) > 10


def test_what_is_missing_is_named(coco, tmp_path):
    assert 'only 10 images' in call('coco-fid', '--src', coco, '--out', tmp_path / 'out', '--count', 11).stderr
    first = choose(*read_captions(coco), 5, 0)[2][0]
    (coco / 'val2014' / first).write_bytes(b'broken')
    with pytest.raises(ConfigError, match=f'{first}: not an image'):
        prepare_coco_fid(coco, tmp_path / 'out', 5, progress=False)
    (coco / 'val2014' / first).unlink()
    with pytest.raises(ConfigError, match=f'1 of the 5 images are missing .{first}'):
        prepare_coco_fid(coco, tmp_path / 'out', 5, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['coco']
    for content, message in (
        ('{', 'damaged'),
        ('{"images": [{"id": 1}], "annotations": []}', 'not MSCOCO'),
        ('{"images": [{"id": 1, "file_name": "../x.jpg"}], "annotations": []}', 'not a file name'),
    ):
        (coco / 'annotations' / 'captions_val2014.json').write_text(content)
        with pytest.raises(ConfigError, match=message):
            prepare_coco_fid(coco, tmp_path / 'out', 5, progress=False)
