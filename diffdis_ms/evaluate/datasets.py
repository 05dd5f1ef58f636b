"""Open the data sets that `tools/evaluate.py` knows by name."""

from pathlib import Path

from diffdis_ms.data.benchmarks.class_names import resolve_names
from diffdis_ms.data.benchmarks.karpathy import KARPATHY_SETS, KarpathySet
from diffdis_ms.data.benchmarks.sets import BENCHMARKS, open_benchmark
from diffdis_ms.data.sources.folders import ImageFolder, open_captions
from diffdis_ms.data.sources.webdataset import CaptionSet
from diffdis_ms.errors import ConfigError

ZEROSHOT_SETS = ('emoji', 'folder', 'webdataset', *BENCHMARKS)
RETRIEVAL_SETS = ('emoji', 'captions', 'webdataset', *KARPATHY_SETS)


def open_zeroshot(dataset, data_root, classnames=None, split=None, allow_missing=False):
    """Open a classification set; returns (images, class names).

    Args:
        dataset: 'emoji' (tools/prepare_data.py emoji), 'folder' (root/<class>/<images>), 'webdataset' (tars with .cls;
            also in CLIP_benchmark's layout, root/test/*.tar) or one of `benchmarks.sets.BENCHMARKS`.
        data_root: its directory. classnames: names instead of the set's own (see `class_names.resolve_names`).
        split: split of a benchmark set (see `open_benchmark`); None: the usual one. allow_missing: accept a benchmark
            set with missing images.

    Raises:
        ConfigError: the data set or split is unknown; no data is found; there are no class names, or their number is
            not the benchmark set's number of classes.
    """
    if dataset not in ZEROSHOT_SETS:
        raise ConfigError(f'dataset: {dataset!r} is none of {", ".join(ZEROSHOT_SETS)}')
    if dataset in BENCHMARKS:
        return _open_benchmark(dataset, data_root, classnames, split, allow_missing)
    _refuse_split(dataset, split)
    images = (
        ImageFolder(data_root) if dataset == 'folder' else CaptionSet(_tars(data_root, dataset), require_caption=False)
    )
    names = resolve_names(classnames, dataset, images)
    if not names:
        raise ConfigError(f'{data_root} has no classnames.txt; give the class names with --classnames FILE')
    return images, names


def _open_benchmark(dataset, data_root, classnames, split, allow_missing):
    images = open_benchmark(dataset, data_root, split or 'test', allow_missing)
    names = resolve_names(classnames, dataset, images)
    if not names:
        raise ConfigError(
            f'{dataset}: the files in {data_root} hold no class names; give them with --classnames FILE or '
            '--classnames clip'
        )
    return images, names


def open_retrieval(dataset, data_root, split=None):
    """Open a set of image-caption pairs.

    Args:
        dataset: 'emoji' (the held-out ones), 'coco' or 'flickr30k' (with Karpathy's splits) or 'captions' (tars or a
            csv file).
        data_root: its directory. split: Karpathy's 'test' (the default), 'val', 'train' or 'restval'.

    Raises:
        ConfigError: the data set or split is unknown, or no data is found.
    """
    if dataset not in RETRIEVAL_SETS:
        raise ConfigError(f'dataset: {dataset!r} is none of {", ".join(RETRIEVAL_SETS)}')
    if dataset in KARPATHY_SETS:
        return KarpathySet(dataset, data_root, split or 'test')
    _refuse_split(dataset, split)
    return open_captions(_tars(data_root, dataset))


def _refuse_split(dataset, split):
    if split is not None:
        raise ConfigError(
            f'split: {dataset} has no splits to choose from; leave --split out, and let --data-root be what is to be'
            ' measured'
        )


def _emoji_root(data_root, dataset):
    root = Path(data_root)
    return root / 'held_out' if dataset == 'emoji' and (root / 'held_out').is_dir() else root


def _tars(data_root, dataset):
    root = _emoji_root(data_root, dataset)
    in_test = (
        dataset in ('webdataset', 'captions')
        and root.is_dir()
        and not any(root.glob('*.tar'))
        and any(root.glob('test/*.tar'))
    )
    return root / 'test' if in_test else root
