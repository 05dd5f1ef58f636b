"""Results of `tools/evaluate.py` as an HTML page, or as sections of another page."""

from diffdis_ms.evaluate.pictures import read_rgb
from diffdis_ms.evaluate.report.page import Report, figure_image
from diffdis_ms.evaluate.report.result_files import ACCURACIES
from diffdis_ms.evaluate.report.tables import percent, tables

# entries of a protocol that are long and already shown in another way
HIDDEN = ('templates', 'files_sha256', 'pictures')


def write_report(results, path):
    """Write one self-contained page; see `add_results`."""
    report = Report('Evaluation')
    add_results(report, results)
    report.write(path)


def add_results(report, results):
    """Add results to a Report.

    There are tables, accuracy over steps and over w, spread over seeds, accuracy by class, confusion matrices, examples
    and protocols.
    """
    for title, header, rows, notes in tables(results):
        report.heading(title)
        report.table(header, rows)
        for note in notes:
            report.text(note, note=True)
    for result in results:
        {'zeroshot': _add_zeroshot, 'retrieval': _add_retrieval, 'generation': _add_generation}[result['task']](
            report, result
        )
    report.heading('Protocols')
    for r in results:
        shown = ', '.join(f'{key} {value}' for key, value in r['protocol'].items() if key not in HIDDEN)
        report.text(f'{r["path"].name}: {shown}')


def _add_zeroshot(report, r):
    report.heading(f'{r["dataset"]}, {r["split"]}: zero-shot')
    for axis, other in (('steps', 'guidance_weight'), ('guidance_weight', 'steps')):
        if len({row[axis] for row in r.get('sweep', ())}) > 1:
            report.picture(plot_sweep(r['sweep'], axis, other), f'acc1 over {axis}')
    if r.get('spread'):
        report.table(
            ['steps', 'w', 'seeds', 'acc1, mean', 'its standard deviation'],
            [
                [
                    str(s['steps']),
                    f'{s["guidance_weight"]:g}',
                    str(s['seeds']),
                    percent(s['acc1']['mean']),
                    f'{100 * s["acc1"]["std"]:.3f}',
                ]
                for s in r['spread']
            ],
        )
    if len(r.get('sweep', ())) > 1:
        report.details(
            f'all {len(r["sweep"])} samplings',
            ['steps', 'w', 'seed', *ACCURACIES],
            [
                [
                    str(row['steps']),
                    f'{row["guidance_weight"]:g}',
                    str(row['seed']),
                    *(percent(row[m]) for m in ACCURACIES),
                ]
                for row in r['sweep']
            ],
        )
    matrix = r['path'].with_name(r['path'].name + '.confusion.png')
    if matrix.is_file():
        report.picture(
            read_rgb(matrix).convert('L'), 'confusion matrix: rows are true classes, columns are predicted classes'
        )
    if r.get('per_class'):
        report.details(
            f'all {len(r["per_class"])} classes',
            ['class', 'images', 'recall, %'],
            [
                [row['class'], str(row['count']), '' if row['recall'] is None else percent(row['recall'])]
                for row in r['per_class']
            ],
        )


def _add_retrieval(report, r):
    if r['examples']:
        report.heading(f'{r["dataset"]}, {r["split"]}: texts found for images')
        report.texts_found(r['examples']['image_to_text'])
        report.heading(f'{r["dataset"]}, {r["split"]}: images found for texts')
        report.images_found(r['examples']['text_to_image'])


def _add_generation(report, r):
    if r['examples']:
        captions, fakes, reals = zip(*r['examples'], strict=True)
        beside = any(real is not None for real in reals)
        report.heading(
            f'{r["path"].name}: generated images'
            + (' (left) and the real ones of their captions (right)' if beside else '')
        )
        report.pairs(captions, fakes, reals)


def plot_sweep(sweep, axis, other):
    """Plot acc1 over one axis of a sweep, one line per value of the other, averaged over seeds; returns a PIL image."""
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
        if len(xs) < 2:  # these were measured for the other axis
            continue
        panel.plot(xs, [sum(points[x]) / len(points[x]) for x in xs], marker='o', label=f'{other} {value:g}')
    panel.set(xlabel=axis, ylabel='acc1, %')
    panel.legend(fontsize=7)
    panel.grid(alpha=0.3)
    return figure_image(figure)
