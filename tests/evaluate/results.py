"""Result files with examples, for reports."""

import json

from PIL import Image

from diffdis_ms.evaluate.examples import thumbnail

HOSTILE = (
    '<script>alert(1)</script>"><img src=x onerror=alert(2)> [a](javascript:x) | `b` ![c](http://d.example/e.png)\n# f'
)


def write_results(folder, caption=HOSTILE):
    """A result of each task with examples of this caption: paths."""
    recalls = {f'{way}_R@{k}': 0.5 for way in ('image_to_text', 'text_to_image') for k in (1, 5, 10)}
    picture = thumbnail(Image.new('RGB', (40, 40), 'red'))
    common = {'dataset': caption, 'split': caption, 'num_samples': 2}
    results = {
        'z.json': {
            'task': 'zeroshot',
            'metrics': {'acc1': 0.5, 'acc5': 1, 'mean_per_class_recall': 0.5},
            'protocol': {'model': caption},
            'per_class': [{'class': caption, 'count': 2, 'recall': 0.5}, {'class': 'b', 'count': 0, 'recall': None}],
        },
        'r.json': {
            'task': 'retrieval',
            'metrics': {**recalls, 'mean_R@1': 0.5},
            'protocol': {},
            'examples': {
                'image_to_text': [
                    {
                        'key': 'a',
                        'image': picture,
                        'captions': [caption, 'own'],
                        'found': [{'caption': 'wrong', 'right': False}, {'caption': caption, 'right': True}],
                    }
                ],
                'text_to_image': [
                    {
                        'caption': caption,
                        'found': [
                            {'key': 'a', 'image': picture, 'right': True},
                            {'key': 'b', 'image': picture, 'right': False},
                        ],
                    }
                ],
            },
        },
        'g.json': {
            'task': 'generation',
            'metrics': {'fid': 1.0, 'clip_score': 2.0},
            'protocol': {
                'inception_published': False,
                'inception_sha256': caption,
                'num_real': 2,
                'num_fake': 2,
                'clip': caption,
            },
            'examples': [
                {'name': 'a.png', 'caption': caption, 'fake': picture, 'real': picture},
                {'name': caption, 'caption': None, 'fake': picture, 'real': None},
            ],
        },
    }
    for name, content in results.items():
        (folder / name).write_text(json.dumps({**common, **content}))
    return [folder / name for name in results]
