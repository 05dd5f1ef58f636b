"""Class names and prompt templates of zero-shot classification."""
import json
from pathlib import Path

from diffdis_ms.config import ConfigError

TEMPLATES = {
    'plain': ['{}'],
    'photo': ['a photo of a {}.'],
    'openai': [                                  # of the 80 that CLIP's authors wrote for ImageNet
        'a photo of a {}.', 'a bad photo of a {}.', 'a photo of many {}.', 'a sculpture of a {}.', 'a photo of the hard to see {}.',
        'a low resolution photo of the {}.', 'a rendering of a {}.', 'graffiti of a {}.', 'a bad photo of the {}.',
        'a cropped photo of the {}.', 'a tattoo of a {}.', 'the embroidered {}.', 'a photo of a hard to see {}.',
        'a bright photo of a {}.', 'a photo of a clean {}.', 'a photo of a dirty {}.', 'a dark photo of the {}.', 'a drawing of a {}.',
        'a photo of my {}.', 'the plastic {}.', 'a photo of the cool {}.', 'a close-up photo of a {}.',
        'a black and white photo of the {}.', 'a painting of the {}.', 'a painting of a {}.', 'a pixelated photo of the {}.',
        'a sculpture of the {}.', 'a bright photo of the {}.', 'a cropped photo of a {}.', 'a plastic {}.', 'a photo of the dirty {}.',
        'a jpeg corrupted photo of a {}.', 'a blurry photo of the {}.', 'a photo of the {}.', 'a good photo of the {}.',
        'a rendering of the {}.', 'a {} in a video game.', 'a photo of one {}.', 'a doodle of a {}.', 'a close-up photo of the {}.',
        'the origami {}.', 'the {} in a video game.', 'a sketch of a {}.', 'a doodle of the {}.', 'an origami {}.',
        'a low resolution photo of a {}.', 'the toy {}.', 'a rendition of the {}.', 'a photo of the clean {}.',
        'a photo of a large {}.', 'a rendition of a {}.', 'a photo of a nice {}.', 'a photo of a weird {}.', 'a blurry photo of a {}.',
        'a cartoon {}.', 'art of a {}.', 'a sketch of the {}.', 'an embroidered {}.', 'a pixelated photo of a {}.', 'itap of the {}.',
        'a jpeg corrupted photo of the {}.', 'a good photo of a {}.', 'a plushie {}.', 'a photo of the nice {}.',
        'a photo of the small {}.', 'a photo of the weird {}.', 'the cartoon {}.', 'art of the {}.', 'a drawing of the {}.',
        'a photo of the large {}.', 'a black and white photo of a {}.', 'the plushie {}.', 'a dark photo of a {}.', 'itap of a {}.',
        'graffiti of the {}.', 'a toy {}.', 'itap of my {}.', 'a photo of a cool {}.', 'a photo of a small {}.', 'a tattoo of the {}.',
    ],
}


def read_labels(text_or_path, dataset=None):
    """Class names, in order.

    Args:
        text_or_path: 'cat,dog,fox'; or a file: one name a line, or JSON (a list, or an object data set -> list as CLIP_benchmark's).
        dataset: the key, for a JSON object.

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
        if name in seen:
            raise ConfigError(f'labels: {name!r} is given twice')
        seen.add(name)
    return names


def read_templates(name_or_path, dataset=None):
    """Prompt templates, each with `{}` where the class name goes.

    Args:
        name_or_path: a name of `TEMPLATES`; one template ('a drawing of a {}'); or a file as for `read_labels`
            (CLIP_benchmark's `{c}` is understood, too).
        dataset: the key, for a JSON object.

    Returns:
        list of str.

    Raises:
        ConfigError: unknown name, unreadable file, no template, or a template without `{}`.
    """
    text = str(name_or_path)
    if text in TEMPLATES:
        return list(TEMPLATES[text])
    if _is_file(Path(text)):
        templates = _read_list(Path(text), dataset)
    elif '{' in text:
        templates = [text]
    else:
        raise ConfigError(f'templates: {text!r} is neither a file nor one of {", ".join(TEMPLATES)} nor a text with {{}} in it')
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
        if dataset not in content:
            wrong = f'has no data set {dataset!r}; it has' if dataset else 'holds several data sets, name one'
            raise ConfigError(f'{path} {wrong}: {", ".join(sorted(content))}')
        content = content[dataset]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f'{path} does not hold a list of strings')
    return content
