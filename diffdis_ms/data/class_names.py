"""Class names and prompt templates of zero-shot classification."""
import json
from pathlib import Path

from diffdis_ms.config import ConfigError
from diffdis_ms.data.prompt_templates import DATASET_TEMPLATES, TEMPLATES

# what CLIP_benchmark's JSON files call a data set, where the name is another
_CLIP_BENCHMARK = {'flowers102': 'flowers', 'oxfordpets': 'pets', 'stanfordcars': 'cars', 'aircraft': 'fgvc_aircraft', 'imagenet': 'imagenet1k'}


def read_labels(text_or_path, dataset=None, unique=True):
    """Class names, in order.

    Args:
        text_or_path: 'cat,dog,fox'; or a file: one name a line, or JSON (a list, or an object data set -> list as CLIP_benchmark's).
        dataset: the key, for a JSON object; CLIP_benchmark's own name of it is found, too.
        unique: no name may be given twice (CLIP's own list for ImageNet has 'sunglasses' twice).

    Returns:
        list of str.

    Raises:
        ConfigError: no such file, not readable, unknown data set, no name, an empty one, or one given twice.
    """
    path = Path(text_or_path)
    if _is_file(path):
        names = _read_list(path, dataset)
    elif path.suffix in ('.txt', '.json') and ',' not in str(text_or_path):
        raise ConfigError(f'label file {path} does not exist')
    else:
        names = str(text_or_path).split(',')
    names = [name.strip() for name in names]
    if not any(names):
        raise ConfigError(f'labels: no name in {text_or_path!r}')
    seen = set()
    for i, name in enumerate(names):
        if not name:
            raise ConfigError(f'labels: name {i + 1} of {len(names)} is empty')
        if unique and name in seen:
            raise ConfigError(f'labels: {name!r} is given twice')
        seen.add(name)
    return names


def read_templates(name_or_path, dataset=None):
    """Prompt templates, each with `{}` where the class name goes.

    Args:
        name_or_path: a name of `TEMPLATES`; 'clip' for those CLIP's authors wrote for `dataset`; one template
            ('a drawing of a {}'); or a file as for `read_labels` (CLIP_benchmark's `{c}` is understood, too).
        dataset: the data set: for 'clip', and the key of a JSON object.

    Returns:
        list of str.

    Raises:
        ConfigError: unknown name, no templates of CLIP for this data set, unreadable file, no template, or a template without `{}`.
    """
    text = str(name_or_path)
    if text in TEMPLATES:
        return list(TEMPLATES[text])
    if text == 'clip':
        if dataset not in DATASET_TEMPLATES:
            raise ConfigError(f'templates: CLIP has none of its own for {dataset or "this data set"}, only for {", ".join(DATASET_TEMPLATES)}; '
                              'take another name or a file')
        return list(DATASET_TEMPLATES[dataset])
    if _is_file(Path(text)):
        templates = _read_list(Path(text), dataset)
    elif '{' in text:
        templates = [text]
    else:
        raise ConfigError(f'templates: {text!r} is neither a file nor one of {", ".join(TEMPLATES)}, clip nor a text with {{}} in it')
    templates = [t.replace('{c}', '{}') for t in templates if t.strip()]
    if not templates:
        raise ConfigError(f'templates: none in {text}')
    for template in templates:
        rest = template.replace('{}', '')
        if rest == template or '{' in rest or '}' in rest:
            raise ConfigError(f'templates: {template!r} needs {{}} where the class name goes, and no other brace')
    return templates


def _is_file(path):
    try:
        return path.is_file()
    except (OSError, ValueError):                # a long list of names is no path
        return False


def _read_list(path, dataset):
    try:
        text = path.read_text(encoding='utf-8-sig')
        if path.suffix != '.json':
            return text.strip().splitlines()
        content = json.loads(text)
    except (ValueError, RecursionError) as e:    # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ConfigError(f'{path} cannot be read: {e}') from None
    if isinstance(content, dict):
        if dataset is None and len(content) == 1:
            dataset = next(iter(content))
        if dataset not in content and _CLIP_BENCHMARK.get(dataset) in content:
            dataset = _CLIP_BENCHMARK[dataset]
        if dataset not in content:
            wrong = f'has no data set {dataset!r}; it has' if dataset else 'holds several data sets, name one'
            raise ConfigError(f'{path} {wrong}: {", ".join(sorted(content))}')
        content = content[dataset]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f'{path} does not hold a list of strings')
    return content
