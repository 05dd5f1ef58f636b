"""The demo's own choices and its page; the training is tools/train.py's and the numbers are evaluate.py's."""

import importlib.util
import json
from argparse import Namespace

import pytest
from PIL import Image

from tests.evaluate.results import write_results
from tests.workspace import ROOT


@pytest.fixture
def demo():
    spec = importlib.util.spec_from_file_location('demo', ROOT / 'tools/demo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('fast', [True, False])
def test_the_sweep_varies_steps_weight_and_seed_one_at_a_time(demo, fast):
    chosen = demo.choose_samplings(Namespace(fast=fast, seed=7))
    assert (chosen[0].steps, chosen[0].guidance_weight, chosen[0].seed) == (8, 3.0, 7) and len(set(chosen)) == len(
        chosen
    )
    for vary, keep in (
        ('steps', ('guidance_weight', 'seed')),
        ('guidance_weight', ('steps', 'seed')),
        ('seed', ('steps', 'guidance_weight')),
    ):
        groups = {}
        for s in chosen:
            groups.setdefault(tuple(getattr(s, k) for k in keep), []).append(getattr(s, vary))
        assert max(map(len, groups.values())) >= (2 if fast else 3)


def test_the_page_shows_every_evaluation_and_says_what_its_fid_is_worth(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage in ('autoencoder', 'clip', 'diffdis', 'evaluation'):
        (demo.OUT / stage).mkdir(parents=True)
        (demo.OUT / stage / 'metrics.jsonl').write_text(
            json.dumps({'step': 1, 'loss': 1.0, 'loss_ig': 0.5, 'loss_ita': 0.5}) + '\n'
        )
    write_results(tmp_path, 'woman cook')
    for task, path in demo.RESULTS.items():
        (tmp_path / f'{task[0]}.json').rename(path)
    recalls = {f'{way}_R@{k}': 0.5 for way in ('image_to_text', 'text_to_image') for k in (1, 5, 10)}
    metrics = {
        'seconds': 3.0,
        'stages': {'data': 1.0},
        'num_train': 5,
        'num_held_out': 2,
        'skipped': 1,
        'retrieval': {'num_candidates': 2, **recalls, 'mean_R@1': 0.5, 'chance_R@1': 0.5},
        'zeroshot': {'num_classes': 2, 'acc1': 0.5, 'acc5': 1.0, 'chance': 0.5},
        'generation': {'steps': 4, 'sampler': 'pndm', 'guidance_weight': 1.0},
    }
    picture = Image.new('RGB', (32, 32), 'red')
    demo.write_report(metrics, ([picture] * len(demo.KINDS), [picture] * len(demo.KINDS)), fast=True)
    page = (demo.OUT / 'report.html').read_text()
    assert page.count('<img') == 6 + 2 * len(demo.KINDS) + 1  # examples, the training set's, loss curves
    for words in (
        'random weights',
        'can be compared only within this report',
        'not the published ones',
        'the score is not independent',
        'This was --fast',
        'Generation',
        'Zero-shot classification',
        'Retrieval on woman cook',
        'images found for texts',
    ):
        assert words in page
