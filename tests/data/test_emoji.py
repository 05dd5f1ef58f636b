"""The demo set: what is drawn, what is left out, and that held out means unseen."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from diffdis_ms.data.make.emoji import TONES, draw_all, prepare_emoji, split_caption, split_held_out
from diffdis_ms.data.sources.webdataset import CaptionSet
from diffdis_ms.data.stream.loader import read_all
from diffdis_ms.errors import ConfigError

SIZE = 48


@pytest.fixture(scope='module')
def drawn():
    return draw_all(SIZE, progress=False)


@pytest.fixture(scope='module')
def out(tmp_path_factory, drawn):
    path = tmp_path_factory.mktemp('emoji') / 'set'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('diffdis_ms.data.make.emoji.draw_all', lambda *_: drawn)
        prepare_emoji(path, SIZE, progress=False)
    return path


def test_nearly_all_emoji_are_drawn_and_the_rest_is_listed(drawn):
    kept, skipped = drawn
    assert len(kept) + len(skipped) == 3963 and len(kept) >= 3850
    assert skipped['lighthouse'] == 'not in the font'
    assert 'loose' in skipped['leftwards thumb sign dark skin tone']
    assert 'without its skin tones' in skipped['people wrestling light skin tone dark skin tone']


def test_pictures_are_whole_coloured_and_on_white(drawn):
    for e in drawn[0]:
        assert e.image.size == (SIZE, SIZE) and e.image.mode == 'RGB'
        ink = (np.asarray(e.image) != 255).any(axis=2)
        border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
        assert ink.any() and not border.any(), e.caption
    by_caption = {e.caption: np.asarray(e.image) for e in drawn[0]}
    heart = by_caption['red heart'].reshape(-1, 3).astype(int)
    assert ((heart[:, 0] - heart[:, 2]) > 100).sum() > 100


def test_captions_are_what_a_person_would_type(drawn):
    captions = [e.caption for e in drawn[0]]
    assert len({c.casefold() for c in captions}) == len(captions)
    assert {'flag of France', 'flag of Scotland', 'grinning face', "man's shoe", 'black flag'} <= set(captions)
    assert not any('_' in c or ':' in c for c in captions)
    assert split_caption('man medium-dark skin tone bald') == ('man bald', ('medium-dark',))
    assert split_caption('handshake light skin tone medium skin tone') == ('handshake', ('light', 'medium'))


def test_held_out_combinations_are_unseen_but_composable(drawn):
    train, held_out = split_held_out(drawn[0])
    assert len(held_out) >= 400 and len(train) + len(held_out) == len(drawn[0])
    combinations = {(e.base, e.tones) for e in train}
    assert not combinations & {(e.base, e.tones) for e in held_out} and not {e.caption for e in train} & {
        e.caption for e in held_out
    }
    seen = defaultdict(set)
    for base, tones in combinations:
        seen[base].add(tones)
    for e in held_out:
        assert e.tones and sum(len(t) == len(e.tones) for t in seen[e.base]) >= 2
    assert len({e.base for e in held_out}) >= 250 and sum(len(e.tones) == 2 for e in held_out) < 25
    concepts = Counter(e.tones[0] for e in train if len(e.tones) == 1)
    held_tones = Counter(e.tones[0] for e in held_out if len(e.tones) == 1)
    assert all(concepts[tone] > 150 and 60 < held_tones[tone] < 120 for tone in TONES)


def test_no_held_out_picture_is_in_training(drawn):
    train, held_out = split_held_out(drawn[0])
    assert not {e.image.tobytes() for e in train} & {e.image.tobytes() for e in held_out}
    assert 'man cook dark skin tone' not in {e.caption for e in held_out}  # 'cook dark skin tone' looks the same


def test_split_depends_on_the_seed_alone(drawn):
    first, again, other = (split_held_out(drawn[0], seed)[1] for seed in (0, 0, 1))
    assert first == again and first != other


def test_written_set(out, drawn):
    summary = json.loads((out / 'summary.json').read_text(encoding='utf-8'))
    train, held_out = CaptionSet(out / 'train'), CaptionSet(out / 'held_out')
    assert (len(train), len(held_out)) == (summary['num_train'], summary['num_held_out'])
    assert summary['num_kept'] == len(drawn[0]) and summary['num_skipped'] == len(summary['skipped']) == len(drawn[1])
    names = held_out.class_names
    assert names == sorted(set(names)) and len(names) == summary['num_held_out_concepts'] and train.class_names is None
    read = read_all(held_out, SIZE, progress=False)
    pixels, captions, labels, skipped = read.pixels, read.captions, read.labels, read.skipped
    assert len(pixels) == len(held_out) and not skipped
    assert [names[label] for label in labels] == [split_caption(c)[0] for c in captions] and set(labels) == set(
        range(len(names))
    )
    sample = held_out.read(0)
    assert sample.meta == {
        'emoji': sample.meta['emoji'],
        'caption': sample.caption,
        'base': names[sample.label],
        'split': 'held_out',
    }
    assert train.read(0).meta['split'] == 'train'


def test_foreign_directories_are_not_replaced(tmp_path):
    (tmp_path / 'mine.txt').write_text('x')
    with pytest.raises(ConfigError, match='--overwrite'):
        prepare_emoji(tmp_path, SIZE)
    with pytest.raises(ConfigError, match='cannot be the output'):
        prepare_emoji('.', SIZE, overwrite=True)
    assert (tmp_path / 'mine.txt').exists()
