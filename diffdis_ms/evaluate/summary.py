"""Results of `tools/evaluate.py`, side by side and beside the paper's numbers, on one HTML page or as part of one."""
from diffdis_ms.data.benchmark_sets import BENCHMARKS
from diffdis_ms.evaluate.pictures import read_rgb
from diffdis_ms.evaluate.report import Report, figure_image
from diffdis_ms.evaluate.result_files import ACCURACIES, RECALLS

# Table 1, top-1 in percent, in the order of BENCHMARKS
PAPER_ZEROSHOT = {
    'CLIP-ViT-B/32': (63.0, 28.5, 58.2, 1.1, 12.4, 12.8, 24.3, 7.6, 1.5, 11.5, 11.8, 16.7),
    'CLIP-ViT-B/16': (57.2, 27.0, 54.8, 1.0, 12.9, 13.6, 28.8, 10.1, 1.1, 10.3, 10.8, 19.7),
    'CLIP-ViT-L/14': (57.5, 28.1, 57.2, 1.8, 10.8, 14.3, 31.2, 12.1, 1.7, 11.7, 24.9, 21.1),
    'DiffDis': (57.1, 32.3, 68.6, 3.1, 16.9, 16.2, 35.1, 26.4, 2.0, 28.5, 17.5, 25.9)}
# Table 2, recalls in percent, in the order of RECALLS
PAPER_RETRIEVAL = {
    'flickr30k': {'CLIP-ViT-B/32': (18.8, 42.3, 53.9, 12.5, 30.5, 39.9), 'CLIP-ViT-B/16': (30.1, 56.4, 68.9, 19.4, 42.1, 52.7),
                  'CLIP-ViT-L/14': (29.9, 58.3, 70.4, 20.3, 46.1, 57.6), 'DiffDis': (49.8, 77.5, 85.6, 38.8, 67.9, 77.6)},
    'coco': {'CLIP-ViT-B/32': (10.1, 25.3, 35.3, 7.0, 18.9, 27.1), 'CLIP-ViT-B/16': (14.4, 34.6, 46.1, 10.3, 26.5, 36.6),
             'CLIP-ViT-L/14': (14.7, 35.0, 47.1, 11.3, 28.4, 38.9), 'DiffDis': (26.3, 50.9, 62.8, 19.5, 42.2, 54.2)}}
# Table 3: FID, KID, CLIP-score
PAPER_GENERATION = {'Stable Diffusion': (10.8, 2.9e-3, 24.6), 'DiffDis': (9.8, 2.3e-3, 24.4)}


def tables(results):
    """[(title, header, rows, notes)]; all strings, notes a list of them."""
    made = []
    zeroshot = [r for r in results if r['task'] == 'zeroshot']
    if zeroshot:
        in_paper = any(r['dataset'] in BENCHMARKS for r in zeroshot)
        paper = {name: dict(zip(BENCHMARKS, values)) for name, values in PAPER_ZEROSHOT.items()} if in_paper else {}
        rows = [[r['dataset'], r['split'], r['num_samples'], *(_percent(r['metrics'][m]) for m in ACCURACIES),
                 *(_known(paper[name].get(r['dataset'])) for name in paper)] for r in zeroshot]
        covered = {r['dataset']: r['metrics']['acc1'] for r in zeroshot}
        if set(BENCHMARKS) <= set(covered):
            rows.append(['mean of the 12', '', '', _percent(sum(covered[b] for b in BENCHMARKS) / 12), '', '',
                         *(f'{sum(values) / 12:.1f}' for values in PAPER_ZEROSHOT.values())])
        made.append((f'Zero-shot classification{" (Table 1)" if paper else ""}, %',
                     ['set', 'split', 'images', 'acc1', 'acc5', 'per class', *(f'{name} (paper)' for name in paper)], rows, []))
    for r in (r for r in results if r['task'] == 'retrieval'):
        rows = [['measured', *(_percent(r['metrics'][m]) for m in RECALLS), _percent(r['metrics']['mean_R@1'])]]
        rows += [[f'{name} (paper)', *(f'{v:.1f}' for v in values), f'{(values[0] + values[3]) / 2:.1f}']
                 for name, values in PAPER_RETRIEVAL.get(r['dataset'], {}).items()]
        table = ' (Table 2)' if r['dataset'] in PAPER_RETRIEVAL else ''
        made.append((f'Retrieval on {r["dataset"]}, {r["split"]}, {r["num_samples"]} images{table}, %',
                     ['', *(m.replace('image_to_text', 'I2T').replace('text_to_image', 'T2I') for m in RECALLS), 'mean R@1'], rows, []))
    generation = [r for r in results if r['task'] == 'generation']
    if generation:
        rows = [[r['dataset'], r['num_samples'], *(_plain(r['metrics'].get(m)) for m in ('fid', 'kid_mean', 'kid_std', 'clip_score'))]
                for r in generation]
        notes = [note for r in generation for note in generation_notes(r)]
        comparable = any(_is_comparable(r) for r in generation)
        if comparable:
            rows += [[f'{name} (paper)', '30000', f'{fid:g}', f'{kid:g}', '', f'{score:g}'] for name, (fid, kid, score) in PAPER_GENERATION.items()]
        made.append((f'Generation{" (Table 3)" if comparable else ""}', ['', 'images', 'FID', 'KID', 'its deviation', 'CLIP-score'], rows, notes))
    return made


def generation_notes(result):
    """What a reader must know before comparing the numbers of a generation result with others: list of sentences."""
    protocol, metrics, notes = result['protocol'], result['metrics'], []
    name = result['path'].name
    if 'fid' in metrics or 'kid_mean' in metrics:
        if not _is_comparable(result):
            notes.append(f'{name}: FID and KID were computed with Inception weights that are not the published ones (sha256 '
                         f'{str(protocol.get("inception_sha256"))[:8]}...). They compare with figures of the same weights only, not with published ones.')
        counts = [protocol.get('num_real'), protocol.get('num_fake')]
        if all(isinstance(n, int) for n in counts) and min(counts) < 2048:
            notes.append(f'{name}: {counts[0]} real and {counts[1]} generated pictures are few: FID, which fits 2048 features, is biased upwards'
                         + (f'; KID drew {protocol["kid_subsets"]} subsets of {protocol["kid_subset_size"]}.' if 'kid_subset_size' in protocol else '.'))
    if 'clip_score' in metrics:
        notes.append(f'{name}: CLIP-score of the CLIP {protocol.get("clip")}; the paper\'s is of CLIP ResNet-50, and scores of different CLIPs do not compare.')
    return notes


def _is_comparable(result):
    """Whether its numbers may stand beside the paper's: files from before this was written down get the benefit of the doubt."""
    return 'fid' not in result['metrics'] and 'kid_mean' not in result['metrics'] or result['protocol'].get('inception_published', True) is True


def write_report(results, path):
    """One self-contained page: see `add_results`."""
    report = Report('Evaluation')
    add_results(report, results)
    report.write(path)


def add_results(report, results):
    """Add to a Report: tables, accuracy over steps and over w, spread over seeds, classes, confusion matrices, examples, protocols."""
    for title, header, rows, notes in tables(results):
        report.heading(title)
        report.table(header, rows)
        for note in notes:
            report.text(note, note=True)
    for result in results:
        {'zeroshot': _add_zeroshot, 'retrieval': _add_retrieval, 'generation': _add_generation}[result['task']](report, result)
    report.heading('Protocols')
    for r in results:
        report.text(f'{r["path"].name}: ' + ', '.join(f'{key} {value}' for key, value in r['protocol'].items() if key != 'templates'))


def _add_zeroshot(report, r):
    report.heading(f'{r["dataset"]}, {r["split"]}: zero-shot')
    for axis, other in (('steps', 'guidance_weight'), ('guidance_weight', 'steps')):
        if len({row[axis] for row in r.get('sweep', ())}) > 1:
            report.picture(plot_sweep(r['sweep'], axis, other), f'acc1 over {axis}')
    if r.get('spread'):
        report.table(['steps', 'w', 'seeds', 'acc1, mean', 'its standard deviation'],
                     [[str(s['steps']), f'{s["guidance_weight"]:g}', str(s['seeds']), _percent(s['acc1']['mean']), f'{100 * s["acc1"]["std"]:.3f}']
                      for s in r['spread']])
    if len(r.get('sweep', ())) > 1:
        report.details(f'all {len(r["sweep"])} samplings', ['steps', 'w', 'seed', *ACCURACIES],
                       [[str(row['steps']), f'{row["guidance_weight"]:g}', str(row['seed']), *(_percent(row[m]) for m in ACCURACIES)] for row in r['sweep']])
    matrix = r['path'].with_name(r['path'].name + '.confusion.png')
    if matrix.is_file():
        report.picture(read_rgb(matrix).convert('L'), 'confusion matrix: true class down, class found across')
    if r.get('per_class'):
        report.details(f'all {len(r["per_class"])} classes', ['class', 'images', 'recall, %'],
                       [[row['class'], str(row['count']), '' if row['recall'] is None else _percent(row['recall'])] for row in r['per_class']])


def _add_retrieval(report, r):
    if r['examples']:
        report.heading(f'{r["dataset"]}, {r["split"]}: texts found for images')
        report.texts_found(r['examples']['image_to_text'])
        report.heading(f'{r["dataset"]}, {r["split"]}: images found for texts')
        report.images_found(r['examples']['text_to_image'])


def _add_generation(report, r):
    if r['examples']:
        captions, fakes, reals = zip(*r['examples'])
        beside = any(real is not None for real in reals)
        report.heading(f'{r["path"].name}: generated pictures' + (' (left) and the real ones of their captions (right)' if beside else ''))
        report.pairs(captions, fakes, reals)


def plot_sweep(sweep, axis, other):
    """acc1 over one axis of a sweep, a line each value of the other, averaged over seeds. Returns a PIL image."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    figure, panel = pyplot.subplots(figsize=(5, 3))
    for value in sorted({row[other] for row in sweep}):
        points = {}
        for row in sweep:
            if row[other] == value:
                points.setdefault(row[axis], []).append(100 * row['acc1'])
        xs = sorted(points)
        if len(xs) < 2:                          # measured for the other axis
            continue
        panel.plot(xs, [sum(points[x]) / len(points[x]) for x in xs], marker='o', label=f'{other} {value:g}')
    panel.set(xlabel=axis, ylabel='acc1, %')
    panel.legend(fontsize=7)
    panel.grid(alpha=0.3)
    return figure_image(figure)


def _percent(value):
    return f'{100 * value:.2f}'


def _known(value):
    return '' if value is None else f'{value:.1f}'


def _plain(value):
    return '' if value is None else f'{value:.4g}'
