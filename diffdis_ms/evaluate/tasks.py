"""Zero-shot classification and image-text retrieval of an embedded set. Nothing here writes files."""

import numpy as np

from diffdis_ms.errors import ConfigError
from diffdis_ms.evaluate.examples import retrieval_examples
from diffdis_ms.evaluate.metrics.retrieval import retrieval_metrics
from diffdis_ms.evaluate.metrics.zeroshot import class_hits, confusion, zeroshot_metrics


def zeroshot(pipe, embedded, class_names, templates, partial=False):
    """Zero-shot classification of an embedded set; labels come with the samples.

    Args:
        pipe: DiffDisPipeline or ClipModel. embedded: Embedded. class_names: list. templates: list of strings with {}.
        partial: accept classes without images, because part of the set is known to be missing.

    Returns:
        (result, confusion matrix). The result has `metrics` of the first sampling, one row per sampling in `sweep`,
        their spread over seeds, and one row per class in `per_class`.

    Raises:
        ConfigError: a label is not an index of a class name; a class has no images, unless `partial`; an embedding is
            not finite.
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
            f'{len(empty)} of the {len(class_names)} classes have no image, the first: {empty[0]!r}; is this the'
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


def retrieval(pipe, embedded, reader):
    """Metrics of `retrieval_metrics` and examples for the first sampling.

    The captions of an image are those that the set lists, or its single caption.
    """
    if hasattr(reader, 'captions_of'):
        captions = [reader.captions_of(i) for i in embedded.indices]
    else:
        captions = [[caption] for caption in embedded.captions]
    image_of_text = np.repeat(np.arange(len(captions)), [len(c) for c in captions])
    texts = [caption for own in captions for caption in own]
    e, e0 = pipe.embed_texts(texts), next(iter(embedded.e0.values()))
    return {
        'metrics': retrieval_metrics(e0, e, image_of_text),
        'num_captions': len(e),
        'examples': retrieval_examples(
            e0, e, image_of_text, texts, embedded.keys, lambda row: reader.read(int(embedded.indices[row])).image
        ),
    }
