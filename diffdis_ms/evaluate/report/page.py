"""A self-contained HTML page: curves and images are embedded, nothing is loaded from elsewhere."""

import base64
import html
import io
from pathlib import Path

from PIL import Image

from diffdis_ms.errors import ConfigError
from diffdis_ms.storage.files import whole_file
from diffdis_ms.text_files import parse_json, read_lines

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: .4em; vertical-align: top; width: 164px; }
figcaption { font-size: 12px; line-height: 1.3; }
figure img { width: 72px; height: 72px; margin-right: 2px; border: 1px solid #eee;
  image-rendering: auto; }
.hit { color: #087a2b; font-weight: 600; }
.note { background: #fff6d6; padding: .6em 1em; }
img.plot { max-width: 100%; }
.row img { width: 64px; height: 64px; border: 1px solid #eee; margin-right: 4px; }
.row img.right { outline: 3px solid #087a2b; }
.row td { vertical-align: top; overflow-wrap: anywhere; }
ol { margin: 0; }
summary { cursor: pointer; }
"""


class Report:
    """Collect sections, then write the page.

    report = Report('DiffDis')
    report.heading('Numbers'); report.table(['metric', 'value'], rows); report.write('report.html')
    """

    def __init__(self, title):
        self.title, self.blocks = title, []

    def heading(self, text):
        self.blocks.append(f'<h2>{html.escape(text)}</h2>')

    def text(self, text, note=False):
        self.blocks.append(f'<p{" class=note" if note else ""}>{html.escape(text)}</p>')

    def table(self, header, rows):
        """Add a table from rows of strings; all columns but the first are right-aligned."""
        head = ''.join(f'<th>{html.escape(h)}</th>' for h in header)
        body = ''.join(
            '<tr>'
            + ''.join(f'<td{" class=n" if i else ""}>{html.escape(str(c))}</td>' for i, c in enumerate(row))
            + '</tr>'
            for row in rows
        )
        self.blocks.append(f'<table><tr>{head}</tr>{body}</table>')

    def details(self, summary, header, rows):
        """Add a table that opens on a click."""
        self.blocks.append(f'<details><summary>{html.escape(summary)}</summary>')
        self.table(header, rows)
        self.blocks.append('</details>')

    def pairs(self, captions, generated, real):
        """Add generated images with their captions, each beside the real image (None if there is none)."""
        for caption, left, right in zip(captions, generated, real, strict=True):
            beside = '' if right is None else _image(right, 'true')
            self.blocks.append(
                f'<figure>{_image(left, "drawn")}{beside}<figcaption>{html.escape(caption)}</figcaption></figure>'
            )

    def texts_found(self, examples):
        """Add `examples`: list of (image, its captions, [(text found, whether it is right)], best first)."""
        rows = ''
        for image, captions, found in examples:
            items = ''.join(f'<li{" class=hit" if right else ""}>{html.escape(text)}</li>' for text, right in found)
            own = '<br>'.join(map(html.escape, captions))
            rows += f'<tr class=row><td>{_image(image, "")}</td><td>{own}</td><td><ol>{items}</ol></td></tr>'
        self.blocks.append(
            '<table><tr><th>image</th><th>its captions</th><th>captions found, best first; right ones'
            f' green</th></tr>{rows}</table>'
        )

    def images_found(self, examples):
        """Add `examples`: list of (text, [(image found, whether it is right)], best first)."""
        rows = ''
        for text, found in examples:
            images = ''.join(
                _image(image, 'right' if right else '', 'right' if right else '') for image, right in found
            )
            rows += f'<tr class=row><td>{html.escape(text)}</td><td>{images}</td></tr>'
        self.blocks.append(
            f'<table><tr><th>text</th><th>images found, best first; the right one framed</th></tr>{rows}</table>'
        )

    def picture(self, image, caption):
        """Add a plot or another single image, with its caption below."""
        self.blocks.append(
            f'<p><img class=plot src="{data_uri(image)}"'
            f' alt="{html.escape(caption)}"><br><small>{html.escape(caption)}</small></p>'
        )

    def curves(self, logs):
        """Add loss curves; `logs` is {title: metrics.jsonl}."""
        self.blocks.append(f'<img class=plot src="{data_uri(plot_losses(logs))}" alt="loss curves">')

    def write(self, path):
        page = (
            '<!doctype html><html lang=en><head><meta'
            f' charset=utf-8><title>{html.escape(self.title)}</title><style>{STYLE}</style></head>'
            f'<body><h1>{html.escape(self.title)}</h1>{"".join(self.blocks)}</body></html>'
        )
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(page.encode('utf-8', 'backslashreplace'))  # text of a hostile file may have lone surrogates


def _image(image, alt, kind=''):
    return f'<img{" class=" + kind if kind else ""} src="{data_uri(image)}" alt="{html.escape(alt)}">'


def data_uri(image):
    """A PIL image as a PNG data URI."""
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return 'data:image/png;base64,' + base64.b64encode(buffer.getvalue()).decode()


def plot_losses(logs):
    """Plot the total loss of each run in a panel, with its two terms if both are logged; returns a PIL image."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(logs), figsize=(3.6 * len(logs), 2.8), squeeze=False)
    for panel, (title, path) in zip(panels[0], logs.items(), strict=True):
        rows = read_metrics(path)
        steps = [r['step'] for r in rows]
        panel.plot(steps, [r['loss'] for r in rows], label='total', color='#333333')
        if any(r['loss_ig'] for r in rows):
            panel.plot(steps, [r['loss_ig'] for r in rows], label='generation (Eq. 4)')
            panel.plot(steps, [r['loss_ita'] for r in rows], label='alignment (Eq. 8)')
            panel.legend(fontsize=7)
        panel.set(title=title, xlabel='step', ylim=(0, None))
        panel.grid(alpha=0.3)
    return figure_image(figure)


def read_metrics(path):
    """Read a training run's metrics.jsonl as a list of dicts, one per logged step.

    Raises:
        ConfigError: a line is damaged or lacks a loss.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        row = parse_json(line, f'{path}, line {number},')
        if not all(isinstance(row.get(name), (int, float)) for name in ('step', 'loss', 'loss_ig', 'loss_ita')):
            raise ConfigError(f'{path}, line {number}, lacks one of step, loss, loss_ig, loss_ita; remove the line')
        rows.append(row)
    return rows


def figure_image(figure):
    """Convert a matplotlib figure to a PIL image and close it."""
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format='png', dpi=110)
    pyplot.close(figure)
    return Image.open(buffer)
