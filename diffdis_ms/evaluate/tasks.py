"""From a model and a data set to a result: what `tools/evaluate.py` and the demo call."""

import glob
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from diffdis_ms.data.benchmarks.class_names import resolve_names
from diffdis_ms.data.benchmarks.karpathy import KARPATHY_SETS, KarpathySet
from diffdis_ms.data.benchmarks.sets import BENCHMARKS, open_benchmark
from diffdis_ms.data.sources.folders import ImageFolder, open_captions
from diffdis_ms.data.sources.webdataset import CaptionSet
from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.embedding import ClipEmbeddings, GeneratedQueries
from diffdis_ms.evaluate.examples import retrieval_examples
from diffdis_ms.evaluate.metrics.retrieval import retrieval_metrics
from diffdis_ms.evaluate.metrics.zeroshot import class_hits, confusion, zeroshot_metrics
from diffdis_ms.storage.files import whole_file
from diffdis_ms.storage.model_dir import file_hashes
from diffdis_ms.world import World

ZEROSHOT_SETS = ('emoji', 'folder', 'webdataset', *BENCHMARKS)
RETRIEVAL_SETS = ('emoji', 'captions', 'webdataset', *KARPATHY_SETS)
MAX_NAMED = 100  # of what is missing, in a result file


def zeroshot(pipe, embedded, class_names, templates, partial=False):
    """Zero-shot classification of an embedded set; labels come with the samples.

    Args:
        pipe: DiffDisPipeline or ClipModel. embedded: Embedded. class_names: list. templates: list of strings with {}.
        partial: classes may be without pictures, as the set is known to be a part of itself.

    Returns:
        (result, confusion matrix): `metrics` of the first sampling, one row in `sweep` each sampling, their spread over
        seeds, and a row in `per_class` each class.

    Raises:
        ConfigError: labels that are no class names' places; a class without pictures, unless `partial`; an embedding
            that is not finite.
    """
    labels = embedded.labels
    if any(label is None or not 0 <= label < len(class_names) for label in labels):
        raise ConfigError(
            f'a label of the data set is missing or not in 0..{len(class_names) - 1}, the {len(class_names)} class'
            ' names: is this the right list?'
        )
    present = set(labels)
    empty = [name for c, name in enumerate(class_names) if c not in present]
    if empty and not partial:
        raise ConfigError(
            f'{len(empty)} of the {len(class_names)} classes have no picture, the first: {empty[0]!r}; is this the'
            ' right list of class names? If it is, leave them out with --allow-missing, which names them in the result'
        )
    e = pipe.embed_labels(class_names, templates)
    sweep = [{**vars(sampling), **zeroshot_metrics(e0, e, labels)} for sampling, e0 in embedded.e0.items()]
    matrix = confusion(next(iter(embedded.e0.values())), e, labels)
    counts, hit = matrix.sum(1), class_hits(next(iter(embedded.e0.values())), e, labels)[:, 0]
    per_class = [
        {'class': name, 'count': int(n), 'recall': float(hit[np.equal(labels, c)].mean()) if n else None}
        for c, (name, n) in enumerate(zip(class_names, counts, strict=True))
    ]
    metrics = {name: sweep[0][name] for name in ('acc1', 'acc5', 'mean_per_class_recall')}
    return {'metrics': metrics, 'sweep': sweep, 'spread': spread(sweep), 'per_class': per_class}, matrix


def spread(sweep):
    """Mean and standard deviation over the seeds of each (steps, guidance_weight) that has several (Table 9)."""
    groups = {}
    for row in sweep:
        groups.setdefault((row['steps'], row['guidance_weight']), []).append(row)
    return [
        {
            'steps': steps,
            'guidance_weight': weight,
            'seeds': len(rows),
            **{
                name: {
                    'mean': float(np.mean([r[name] for r in rows])),
                    'std': float(np.std([r[name] for r in rows], ddof=1)),
                }
                for name in ('acc1', 'acc5', 'mean_per_class_recall')
            },
        }
        for (steps, weight), rows in groups.items()
        if len(rows) > 1
    ]


def confusion_picture(matrix, side=640):
    """A confusion matrix as picture: rows are true classes, columns found ones, dark is often."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = Image.fromarray((255 * (1 - share)).astype(np.uint8))
    scale = max(1, side // len(matrix))
    return image.resize((scale * len(matrix),) * 2, Image.Resampling.NEAREST)


def retrieval(pipe, embedded, reader):
    """Metrics of `retrieval_metrics` and examples for the first sampling; each image's captions are those of the set,
    or its only one."""
    if hasattr(reader, 'captions_of'):
        captions = [reader.captions_of(i) for i in embedded.indices]
    else:
        captions = [[caption] for caption in embedded.captions]
    image_of_text, texts = (
        np.repeat(np.arange(len(captions)), [len(c) for c in captions]),
        [caption for own in captions for caption in own],
    )
    e, e0 = pipe.embed_texts(texts), next(iter(embedded.e0.values()))
    return {
        'metrics': retrieval_metrics(e0, e, image_of_text),
        'num_captions': len(e),
        'examples': retrieval_examples(
            e0, e, image_of_text, texts, embedded.keys, lambda row: reader.read(int(embedded.indices[row])).image
        ),
    }


def open_zeroshot(dataset, data_root, classnames=None, split=None, allow_missing=False):
    """(images, class names) of a classification set.

    Args:
        dataset: 'emoji' (tools/prepare_data.py emoji), 'folder' (root/<class>/<images>), 'webdataset' (tars with .cls;
            also in CLIP_benchmark's layout, root/test/*.tar) or one of `benchmarks.sets.BENCHMARKS`.
        data_root: where it lies. classnames: names instead of the set's own (see `class_names.resolve_names`).
        split: of a benchmark set (see `open_benchmark`); None: the one it is measured on. allow_missing: images of it
            may be missing.

    Raises:
        ConfigError: unknown data set or split; nothing there; no class names, or not as many as the benchmark set has
            classes.
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
        raise ConfigError(f'{data_root} has no classnames.txt; give the names with --classnames FILE')
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
    """Image-caption pairs.

    Args:
        dataset: 'emoji' (its held-out part), 'coco' and 'flickr30k' (with Karpathy's splits) or 'captions' (tars, a
            csv).
        data_root: where it lies. split: of Karpathy's: 'test' (None means it), 'val', 'train' or 'restval'.

    Raises:
        ConfigError: unknown data set or split, or nothing there.
    """
    if dataset not in RETRIEVAL_SETS:
        raise ConfigError(f'dataset: {dataset!r} is none of {", ".join(RETRIEVAL_SETS)}')
    if dataset in KARPATHY_SETS:
        return KarpathySet(dataset, data_root, split or 'test')
    _refuse_split(dataset, split)
    return open_captions(_tars(data_root, dataset))


def open_model(directory, batch_size):
    """The model of a directory as (model, its image encoder for `embed_set`, what protocol says of it).

    DiffDis where there is a UNet, else a CLIP: its pictures are embedded directly, without sampling.

    Raises:
        ConfigError: neither, or files that do not fit.
    """
    from diffdis_ms import DiffDisPipeline
    from diffdis_ms.evaluate.clip_model import ClipModel, open_clip_directory

    directory = Path(directory)
    if (directory / 'image_encoder.safetensors').is_file() and not (directory / 'unet.safetensors').is_file():
        model = ClipModel(open_clip_directory(directory), batch_size)
        encoder, image = ClipEmbeddings(model), model.config.image_encoder
        resize = f'{image.interpolation}, {"centre crop" if image.resize_mode == "shortest" else "both sides squashed"}'
        about = {
            'model': 'CLIP',
            'resize': f'{resize}, {encoder.image_size}',
            'mean': list(image.image_mean),
            'std': list(image.image_std),
        }
        weights = 'image_encoder.safetensors'
    else:
        model = DiffDisPipeline.from_pretrained(directory, batch_size)
        encoder = GeneratedQueries(model)
        about = {
            'model': 'DiffDis',
            'gamma': model.config.text_diffusion.gamma,
            'resize': f'bicubic, centre crop, {encoder.image_size}',
        }
        weights = 'unet.safetensors'
    hashes = file_hashes(directory)
    return model, encoder, {**about, 'weights_sha256': hashes[weights], 'files_sha256': hashes}


def describe(task, dataset, images, embedded, measured, protocol):
    """The content of the result file of an embedded set: `measured` by `zeroshot` or `retrieval`; `missing` where it is
    of part of the set."""
    split = getattr(images, 'split', 'held_out' if dataset == 'emoji' else 'all')
    empty = [row['class'] for row in measured.get('per_class', ()) if not row['count']]
    missing = name_missing(embedded.skipped, empty)
    return {
        'task': task,
        'dataset': dataset,
        'split': split,
        'num_samples': len(embedded.keys),
        'num_skipped': len(embedded.skipped),
        **({'missing': missing} if missing else {}),
        **measured,
        'protocol': protocol,
    }


def name_missing(skipped, empty_classes=()):
    """What a result says of its gaps: {} where there are none.

    Args:
        skipped: {key: reason} of pictures that could not be used. empty_classes: names of classes without pictures.

    Returns:
        dict count, names, reasons (of the first MAX_NAMED pictures) and classes {count, names}.
    """
    missing = {}
    if skipped:
        named = dict(list(skipped.items())[:MAX_NAMED])
        missing.update(count=len(skipped), names=list(named), reasons=named)
    if empty_classes:
        missing['classes'] = {'count': len(empty_classes), 'names': list(empty_classes)[:MAX_NAMED]}
    return missing


def say_missing(result):
    """One line on stderr where a result is of part of its set."""
    missing = result.get('missing', {})
    parts = [
        f'{part["count"]} {what} ({", ".join(part["names"][:3])}{" ..." if part["count"] > 3 else ""})'
        for what, part in (('pictures', missing), ('classes', missing.get('classes', {})))
        if 'count' in part
    ]
    if parts:
        print(f'part of the set is missing: {" and ".join(parts)}; named in the result', file=sys.stderr)


def describe_generation(real, measured):
    """The content of the result file of `generation.evaluate_generation`."""
    return {
        'task': 'generation',
        'dataset': str(real) if real else None,
        'split': 'all',
        'num_samples': measured['protocol']['num_fake'],
        **measured,
    }


def write_result(path, result, started):
    """One result file, whole or not at all; `seconds` is the time since `started` (time.monotonic)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as f:
        f.write((json.dumps({**result, 'seconds': time.monotonic() - started}, indent=1) + '\n').encode())


def finish(path, result, started, world=World()):
    """Write the result (the first process does) and drop the finished batches it was made of, and of runs given up
    before."""
    path = Path(path)
    if world.first:
        write_result(path, result, started)
    if world.first or path.is_file() and time.time() - path.stat().st_mtime < time.monotonic() - started:
        for parts in path.parent.glob(f'.{glob.escape(path.name)}.*.parts'):
            shutil.rmtree(parts, ignore_errors=True)


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
