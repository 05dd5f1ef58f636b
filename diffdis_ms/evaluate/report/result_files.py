"""Read result files of `tools/evaluate.py` for a report. They may be untrusted, so everything shown is checked here."""

from pathlib import Path

from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.examples import read_thumbnail
from diffdis_ms.text_files import read_json

RECALLS = tuple(f'{way}_R@{k}' for way in ('image_to_text', 'text_to_image') for k in (1, 5, 10))
ACCURACIES = ('acc1', 'acc5', 'mean_per_class_recall')
REQUIRED = {'zeroshot': ACCURACIES, 'retrieval': (*RECALLS, 'mean_R@1'), 'generation': ()}


def read_results(paths):
    """Read and check results of tools/evaluate.py.

    Returns:
        list of dict: the file's content, `path`, and `examples` with PIL images instead of thumbnails (None without
            examples).

    Raises:
        ConfigError: a file is missing or is not a result.
    """
    results = []
    for path in map(Path, paths):
        content = read_json(path)
        try:
            results.append(as_result(content, path))
        except (ConfigError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise ConfigError(
                f'{path} is not a result of tools/evaluate.py ({type(e).__name__}: {" ".join(str(e).split())[:80]})'
            ) from None
    return results


def as_result(content, path):
    """One result as returned by `read_results`; wrong content raises any exception."""
    task, metrics = content['task'], content['metrics']
    if task not in REQUIRED:
        raise ValueError('unknown task')
    _numbers(metrics, metrics.keys() | set(REQUIRED[task]))
    for row in content.get('sweep', ()):
        _numbers(row, ('steps', 'guidance_weight', 'seed', *ACCURACIES))
    for row in content.get('spread', ()):
        _numbers(row, ('steps', 'guidance_weight', 'seeds'))
        _numbers(row['acc1'], ('mean', 'std'))
    for row in content.get('per_class', ()):
        _numbers(row, ('count',) if row['recall'] is None else ('count', 'recall'))
        _texts(row['class'])
    content['protocol'].items()
    _check_named(content.get('missing') or {})
    (content['protocol'].get('drawn_with') or {}).items()
    for about in (content['protocol'].get('pictures') or {}).values():
        about['sizes'].items(), _numbers(about['not_square'], ('count',)), _check_named(about['not_square'])
    dataset = path.stem if content['dataset'] is None else content['dataset']
    made = {
        **content,
        'dataset': str(dataset),
        'split': str(content['split']),
        'num_samples': str(content['num_samples']),
        'path': path,
        'examples': None,
    }
    if content.get('examples'):
        made['examples'] = {'zeroshot': lambda examples: None, 'retrieval': _retrieval, 'generation': _generation}[
            task
        ](content['examples'])
    return made


def _retrieval(examples):
    return {
        'image_to_text': [
            (
                read_thumbnail(x['image']),
                _texts(*x['captions']),
                [(*_texts(f['caption']), f['right'] is True) for f in x['found']],
            )
            for x in examples['image_to_text']
        ],
        'text_to_image': [
            (*_texts(x['caption']), [(read_thumbnail(f['image']), f['right'] is True) for f in x['found']])
            for x in examples['text_to_image']
        ],
    }


def _generation(examples):
    return [
        (
            *_texts(x['name'] if x['caption'] is None else x['caption']),
            read_thumbnail(x['fake']),
            x['real'] and read_thumbnail(x['real']),
        )
        for x in examples
    ]


def _check_named(missing):
    """Check {count, names} of missing or odd images, which may contain another one for classes."""
    for named in (missing, missing.get('classes') or {}):
        named.items()
        if 'count' in named:
            _numbers(named, ('count',))
            _texts(*named['names'])


def _numbers(row, names):
    wrong = next(
        (name for name in names if isinstance(row[name], bool) or not isinstance(row[name], (int, float))), None
    )
    if wrong is not None:
        raise ValueError(f'{wrong} is not a number')


def _texts(*texts):
    if not all(isinstance(text, str) for text in texts):
        raise TypeError('a text is expected')
    return texts
