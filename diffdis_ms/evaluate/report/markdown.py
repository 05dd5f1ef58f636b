"""Results of `tools/evaluate.py` as Markdown for a README, with their images in a folder beside it."""

import html
import re
from pathlib import Path

from diffdis_ms.data.transforms import image_grid
from diffdis_ms.evaluate.report.tables import tables
from diffdis_ms.storage.files import whole_file

SPECIAL = re.compile(r'([\\`*_\[\]|!~])')  # Markdown's other signs have no effect within a line
PICTURE = re.compile(r'\d\d+_(image|text|fake|real)\d+\.png')


def write_markdown(results, path):
    """Write `markdown(results)` to NAME.md and its images to the folder NAME_files beside it.

    Images of an earlier report are replaced.
    """
    path = Path(path)
    folder = path.with_name(f'{path.stem}_files')
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('*.png'):  # only the images of an earlier report
        if PICTURE.fullmatch(old.name):
            old.unlink()
    with whole_file(path) as file:
        file.write(markdown(results, folder).encode('utf-8', 'backslashreplace'))


def markdown(results, folder=None):
    """Tables and notes, and examples if there is a folder for their images. All text from files is escaped."""
    lines = []
    for title, header, rows, notes in tables(results):
        lines += [f'**{_escaped(title)}**', '', *_table(header, [[_escaped(cell) for cell in row] for row in rows])]
        lines += [line for note in notes for line in (f'> {_escaped(note)}', '')]
    for k, r in enumerate(results):
        if folder is not None and r['examples'] and r['task'] == 'retrieval':
            lines += _retrieval(r, folder, f'{k:02d}')
        elif folder is not None and r['examples']:
            lines += _generation(r, folder, f'{k:02d}')
    return '\n'.join(lines)


def _retrieval(r, folder, prefix):
    examples, name = r['examples'], _escaped(f'{r["dataset"]}, {r["split"]}')
    rows = [
        [
            _picture(image, folder, f'{prefix}_image{k}'),
            '<br>'.join(map(_escaped, captions)),
            '<br>'.join(f'<b>{_escaped(text)}</b>' if right else _escaped(text) for text, right in found),
        ]
        for k, (image, captions, found) in enumerate(examples['image_to_text'])
    ]
    lines = [
        f'**{name}: texts found for images, best first, right ones in bold**',
        '',
        *_table(['image', 'its captions', 'found'], rows),
    ]
    rows = []
    for k, (text, found) in enumerate(examples['text_to_image']):
        right = next((str(place) for place, (_, hit) in enumerate(found, 1) if hit), '')
        sheet = image_grid([image.resize((96, 96)) for image, _ in found], len(found))
        rows.append([_escaped(text), right, _picture(sheet, folder, f'{prefix}_text{k}')])
    return lines + [
        f'**{name}: images found for texts, best first**',
        '',
        *_table(['text', 'rank of the right one', 'found'], rows),
    ]


def _generation(r, folder, prefix):
    rows = [
        [
            _escaped(caption),
            _picture(fake, folder, f'{prefix}_fake{k}'),
            '' if real is None else _picture(real, folder, f'{prefix}_real{k}'),
        ]
        for k, (caption, fake, real) in enumerate(r['examples'])
    ]
    return [f'**{_escaped(r["path"].name)}: generated images**', '', *_table(['caption', 'generated', 'real'], rows)]


def _table(header, rows):
    return ['| ' + ' | '.join(cells) + ' |' for cells in (header, ['---'] * len(header), *rows)] + ['']


def _picture(image, folder, name):
    folder.mkdir(exist_ok=True)
    image.save(folder / f'{name}.png')
    return f'![]({folder.name}/{name}.png)'.replace(' ', '%20')


def _escaped(text):
    """Escape a text so that Markdown shows it literally, on one line: no HTML, no links, no end of the table cell."""
    return SPECIAL.sub(r'\\\1', html.escape(' '.join(str(text).split()), quote=False))
