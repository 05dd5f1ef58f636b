"""The tables of a report, as text: results of `tools/evaluate.py` side by side and beside the paper's numbers."""

from diffdis_ms.data.benchmarks.sets import BENCHMARKS
from diffdis_ms.evaluate.report import paper
from diffdis_ms.evaluate.report.result_files import ACCURACIES, RECALLS

MEANS_OVER = ('weights_sha256', 'steps', 'guidance_weight')  # results with equal values of these are averaged


def tables(results):
    """Make the tables: [(title, header, rows, notes)], all of strings; notes is a list of strings.

    A result is shown beside the paper's numbers only if its protocol is the same. Otherwise a note names the
    differences (`paper.differences`).
    """
    made = []
    by_task = {task: [r for r in results if r['task'] == task] for task in ('zeroshot', 'retrieval', 'generation')}
    if by_task['zeroshot']:
        made.append(_zeroshot_table(by_task['zeroshot']))
    made += [_retrieval_table(r) for r in by_task['retrieval']] + _retrieval_means(by_task['retrieval'])
    if by_task['generation']:
        made.append(_generation_table(by_task['generation']))
    return made


def _zeroshot_table(results):
    names = list(paper.ZEROSHOT) if any(_is_beside(r) for r in results) else []
    figures = {name: dict(zip(BENCHMARKS, paper.ZEROSHOT[name], strict=True)) for name in names}
    rows = [
        [
            r['dataset'],
            r['split'],
            r['num_samples'],
            paper.template_set(r),
            *(percent(r['metrics'][m]) for m in ACCURACIES),
            *(f'{figures[name][r["dataset"]]:.1f}' if _is_beside(r) else '' for name in names),
        ]
        for r in results
    ]
    for group in _groups(results, BENCHMARKS):
        beside = all(map(_is_beside, group))
        rows.append(
            [
                'mean of the 12',
                '',
                '',
                '',
                percent(sum(r['metrics']['acc1'] for r in group) / 12),
                '',
                '',
                *(f'{sum(paper.ZEROSHOT[name]) / 12:.1f}' if beside else '' for name in names),
            ]
        )
    header = [
        'set',
        'split',
        'images',
        'templates',
        'acc1',
        'acc5',
        'per class',
        *(f'{name} (paper)' for name in names),
    ]
    return f'Zero-shot classification{" (Table 1)" if names else ""}, %', header, rows, _notes(results)


def _retrieval_table(r):
    rows = [['measured', *(percent(r['metrics'][m]) for m in RECALLS), percent(r['metrics']['mean_R@1'])]]
    if _is_beside(r):
        rows += [
            [f'{name} (paper)', *(f'{v:.1f}' for v in values), f'{(values[0] + values[3]) / 2:.1f}']
            for name, values in paper.RETRIEVAL[r['dataset']].items()
        ]
    return (
        (
            f'Retrieval on {r["dataset"]}, {r["split"]}, {r["num_samples"]} '
            f'images{" (Table 2)" if _is_beside(r) else ""}, %'
        ),
        ['', *(m.replace('image_to_text', 'I2T').replace('text_to_image', 'T2I') for m in RECALLS), 'mean R@1'],
        rows,
        _notes([r]),
    )


def _retrieval_means(results):
    """Mean R@1 over both directions and both sets, for each model that was measured on both."""
    made = []
    for group in _groups(results, paper.RETRIEVAL):
        rows = [['measured', percent(sum(r['metrics']['mean_R@1'] for r in group) / len(group))]]
        if all(map(_is_beside, group)):
            rows += [[f'{name} (paper)', f'{paper.mean_retrieval(name):.1f}'] for name in paper.ZEROSHOT]
        made.append(('Mean R@1 over MSCOCO and Flickr30k, %', ['', 'mean R@1'], rows, []))
    return made


def _generation_table(results):
    rows = [
        [
            r['dataset'],
            r['num_samples'],
            *(_plain(r['metrics'].get(m)) for m in ('fid', 'kid_mean', 'kid_std', 'clip_score')),
        ]
        for r in results
    ]
    beside = any(map(_is_beside, results))
    if beside:
        rows += [
            [f'{name} (paper)', '30000', f'{fid:g}', f'{kid:g}', '', f'{score:g}']
            for name, (fid, kid, score) in paper.GENERATION.items()
        ]
    notes = [note for r in results for note in generation_notes(r)] + _notes(results)
    header = ['', 'images', 'FID', 'KID', 'its deviation', 'CLIP-score']
    return f'Generation{" (Table 3)" if beside else ""}', header, rows, notes


def _groups(results, datasets):
    """Lists of results with one per data set that cover all `datasets`.

    The results of a list have the same weights and sampling, and for retrieval the same split.
    """
    groups = {}
    for r in sorted(results, key=lambda r: not _is_beside(r)):  # prefer results that follow the paper's protocol
        key = (*(str(r['protocol'].get(name)) for name in MEANS_OVER), r['task'] == 'retrieval' and r['split'])
        groups.setdefault(key, {}).setdefault(r['dataset'], r)
    return [[found[dataset] for dataset in datasets] for found in groups.values() if set(datasets) <= set(found)]


def _is_beside(result):
    """Whether a result can be shown beside the paper's numbers."""
    return paper.in_paper(result) and not paper.differences(result)


def _notes(results):
    """List of sentences: what is missing in a set, and why a result is not shown beside the paper's numbers."""
    notes = []
    for r in results:
        missing, name = r.get('missing') or {}, r['path'].name
        if 'count' in missing:
            notes.append(f'{name}: {missing["count"]} images of the set are missing ({_listed(missing)}).')
        if 'classes' in missing:
            notes.append(
                f'{name}: {missing["classes"]["count"]} classes have no images ({_listed(missing["classes"])}).'
            )
        if paper.in_paper(r) and paper.differences(r):
            notes.append(f'{name}: not shown beside the paper\'s numbers: {"; ".join(paper.differences(r))}.')
    return notes


def _listed(missing):
    return ', '.join(missing['names'][:5]) + (' ...' if missing['count'] > 5 else '')


def generation_notes(result):
    """List of sentences that a reader must know before comparing a generation result with others."""
    protocol, metrics, notes = result['protocol'], result['metrics'], []
    name = result['path'].name
    if 'fid' in metrics or 'kid_mean' in metrics:
        if protocol.get('inception_published', True) is not True:  # older files do not have this entry
            notes.append(
                f'{name}: FID and KID were computed with Inception weights that are not the published ones (sha256'
                f' {str(protocol.get("inception_sha256"))[:8]}...). Compare them only with results of the same weights,'
                ' not with published ones.'
            )
        for kind, about in protocol.get('pictures', {}).items():
            odd = about['not_square']
            if odd['count']:
                notes.append(
                    f'{name}: {odd["count"]} {kind} images are not square ({_listed(odd)}); they were squashed '
                    'for FID and KID.'
                )
        counts = [protocol.get('num_real'), protocol.get('num_fake')]
        if all(isinstance(n, int) for n in counts) and min(counts) < 2048:
            notes.append(
                f'{name}: {counts[0]} real and {counts[1]} generated images are few: FID, which fits 2048 features,'
                ' is biased upwards'
                + (
                    f'; KID drew {protocol["kid_subsets"]} subsets of {protocol["kid_subset_size"]}.'
                    if 'kid_subset_size' in protocol
                    else '.'
                )
            )
    if 'clip_score' in metrics:
        notes.append(
            f'{name}: CLIP-score of the CLIP {protocol.get("clip")}; the paper uses CLIP ResNet-50, and scores of'
            ' different CLIPs cannot be compared.'
        )
    return notes


def percent(value):
    """Format a share in percent with two decimals, without a % sign."""
    return f'{100 * value:.2f}'


def _plain(value):
    return '' if value is None else f'{value:.4g}'
