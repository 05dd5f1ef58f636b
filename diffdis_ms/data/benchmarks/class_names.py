"""Class names and prompt templates for zero-shot classification."""

import re
from collections import Counter
from pathlib import Path

from diffdis_ms.data.benchmarks.prompt_templates import DATASET_TEMPLATES, TEMPLATES
from diffdis_ms.errors import ConfigError
from diffdis_ms.text_files import lines_of, parse_json, read_json, read_text

# {data set: {class: CLIP's name}}. CLIP's names come from its data/prompts.md, and for ImageNet from its notebook
# Prompt_Engineering_for_ImageNet. A class is the set's own name without spaces, punctuation and capitals; for ImageNet
# it is the WordNet id, for Flowers-102 a number from 1.
CLIP_NAMES = Path(__file__).with_name('clip_names.json')

# names of data sets in CLIP_benchmark's JSON files, if they differ
_CLIP_BENCHMARK = {
    'flowers102': 'flowers',
    'oxfordpets': 'pets',
    'stanfordcars': 'cars',
    'aircraft': 'fgvc_aircraft',
    'imagenet': 'imagenet1k',
}


def read_labels(text_or_path, dataset=None, unique=True):
    """Read class names, in order.

    Args:
        text_or_path: 'cat,dog,fox'; or a file with one name per line, or JSON (a list, or an object data set -> list
            like CLIP_benchmark's).
        dataset: the key in a JSON object; CLIP_benchmark's name of the data set is found as well.
        unique: refuse a name that is given twice (CLIP's own list for ImageNet has 'sunglasses' twice).

    Returns:
        list of str.

    Raises:
        ConfigError: the file is missing or unreadable, the data set is unknown, there is no name, or a name is empty or
            given twice.
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


def resolve_names(classnames, dataset, images):
    """Class names in the order of a set's labels, for names given in any order.

    Args:
        classnames: None for the set's own names; 'clip' for CLIP's names; or an argument of `read_labels`. The set's or
            CLIP's own names may be in any order. Other names must be in the order of the labels.
        dataset: name of the set. images: its reader.

    Returns:
        list of str, or None if the set has no names and none are given.

    Raises:
        ConfigError: see `read_labels`; the number of names is not the number of classes; or some of the names are the
            set's own, but in the position of another class.
    """
    own = images.class_names
    if classnames is None:
        return own
    ids = getattr(images, 'class_ids', None) or own
    if str(classnames) == 'clip':
        return clip_names(dataset, ids)
    names = read_labels(classnames, dataset, unique=False)
    if dataset not in DATASET_TEMPLATES and sorted(names) != sorted(read_json(CLIP_NAMES)['imagenet'].values()):
        names = read_labels(classnames, dataset)  # CLIP's own list for ImageNet has a name twice
    count = getattr(images, 'num_classes', None) or (own and len(own))
    if not count:
        return names
    background = [i for i, name in enumerate(names) if name.lower().startswith('background')]
    if dataset == 'caltech101' and len(names) == count + 1 and len(background) == 1:
        del names[background[0]]  # a class in CLIP's and CLIP_benchmark's lists that is left out here
    if len(names) != count:
        what = f'folders ({_some(own)})' if dataset == 'folder' else 'classes'
        raise ConfigError(f'{dataset}: {classnames} has {len(names)} names for the {count} {what} of the data set')
    for known in (own, _clip_names(dataset, ids)):
        ordered = known and None not in known and _in_order(names, known)
        if ordered:
            return ordered
    for known in (own, _clip_names(dataset, ids)):
        if known and None not in known:
            _refuse_other_places(names, known, classnames, dataset)
    return names


def clip_names(dataset, ids):
    """Names that CLIP's authors gave to the classes of a benchmark set.

    Args:
        dataset: one of DATASET_TEMPLATES. ids: the set's own ids of its classes: names, WordNet ids (imagenet) or
            numbers (flowers102).

    Raises:
        ConfigError: CLIP has no list for the set, or the list lacks a class.
    """
    names = _clip_names(dataset, ids)
    if names is None:
        raise ConfigError(
            f'classnames: CLIP has no list for {dataset}, only for {", ".join(DATASET_TEMPLATES)}; give a file'
        )
    if None in names:
        raise ConfigError(
            f'classnames: CLIP\'s list for {dataset} has no class {str(ids[names.index(None)])!r}: is this the '
            'official data set?'
        )
    return names


def _clip_names(dataset, ids):
    if dataset not in DATASET_TEMPLATES or not ids:
        return None
    names = read_json(CLIP_NAMES)[dataset]
    return [names.get(_key(str(i))) for i in ids]


def _in_order(names, known):
    """`names` in the order of `known` if both have the same elements, else None."""
    given, expected = _keys(names, known)
    name_of = dict(zip(given, names, strict=True))
    return [name_of[key] for key in expected] if Counter(given) == Counter(expected) else None


def _refuse_other_places(names, known, source, dataset):
    """Raise ConfigError if a name of `known` is given in the wrong position."""
    given, expected = _keys(names, known)
    for label, key in enumerate(expected):
        if expected.count(key) == 1 and key in given and given[label] != key:
            raise ConfigError(
                f'{dataset}: {source}: name {given.index(key) + 1}, {known[label]!r}, is class {label + 1} of the '
                'data set, which '
                f'gets {names[label]!r}: give the names in the order of its classes ({_some(known)}), or all of its '
                'own names'
            )


def _keys(names, known):
    key = _key if len(set(map(_key, known))) == len(set(known)) else str.strip
    return [key(name) for name in names], [key(name) for name in known]


def _key(name):
    """A name without spaces, punctuation and capitals."""
    return re.sub(r'[\W_]+', '', name.casefold()) or name.strip()


def _some(names, count=5):
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')


def read_templates(name_or_path, dataset=None):
    """Read prompt templates, each with `{}` for the class name.

    Args:
        name_or_path: a name in `TEMPLATES`; 'clip' for those that CLIP's authors wrote for `dataset`; one template
            ('a drawing of a {}'); or a file as for `read_labels` (CLIP_benchmark's `{c}` also works).
        dataset: name of the data set, for 'clip' and as the key in a JSON object.

    Returns:
        list of str.

    Raises:
        ConfigError: the name is unknown, CLIP has no templates for this data set, the file is unreadable, there is no
            template, or a template has no `{}`.
    """
    text = str(name_or_path)
    if text in TEMPLATES:
        return list(TEMPLATES[text])
    if text == 'clip':
        if dataset not in DATASET_TEMPLATES:
            raise ConfigError(
                f'templates: CLIP has no templates for {dataset or "this data set"}, only for'
                f' {", ".join(DATASET_TEMPLATES)}; use another name or a file'
            )
        return list(DATASET_TEMPLATES[dataset])
    if _is_file(Path(text)):
        templates = _read_list(Path(text), dataset)
    elif '{' in text:
        templates = [text]
    else:
        raise ConfigError(
            f'templates: {text!r} is not a file, one of {", ".join(TEMPLATES)} or clip, or a text with {{}} in it'
        )
    templates = [t.replace('{c}', '{}') for t in templates if t.strip()]
    if not templates:
        raise ConfigError(f'templates: {text} has none')
    for template in templates:
        rest = template.replace('{}', '')
        if rest == template or '{' in rest or '}' in rest:
            raise ConfigError(f'templates: {template!r} needs {{}} for the class name, and no other braces')
    return templates


def choose_templates(templates, dataset):
    """Choose the prompt templates of a zero-shot evaluation; returns (name, list).

    Args:
        templates: as for `read_templates`. None means 'clip' for the benchmark sets (the ensemble of CLIP's authors,
            which the paper uses), and 'plain' (the bare name) for others, because nothing is known of their images.
    """
    if templates is None:
        templates = 'clip' if dataset in DATASET_TEMPLATES else 'plain'
    return str(templates), read_templates(templates, dataset)


def _is_file(path):
    try:
        return path.is_file()
    except (OSError, ValueError):  # a long list of names is not a path
        return False


def _read_list(path, dataset):
    text = read_text(path)
    if path.suffix.lower() != '.json':
        return lines_of(text.strip())
    content = parse_json(text, path, (dict, list))
    if isinstance(content, dict):
        if dataset is None and len(content) == 1:
            dataset = next(iter(content))
        there = _CLIP_BENCHMARK.get(dataset or '')
        if dataset not in content and there in content:
            dataset = there
        if dataset not in content:
            wrong = f'has no data set {dataset!r}; it has' if dataset else 'has several data sets; name one'
            raise ConfigError(f'{path} {wrong}: {", ".join(sorted(content))}')
        content = content[dataset]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f'{path} is not a list of strings')
    return content
