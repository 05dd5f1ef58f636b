"""A run killed in the middle and resumed is the uninterrupted run, to the last bit."""

import json

import numpy as np
from safetensors.numpy import load_file

from diffdis_ms.data.sources.webdataset import CaptionSet
from tests.workspace import LOGGED, assert_one_line_error, command, make_workspace, start_paused

LOSSES = ('step', 'loss', 'loss_ig', 'loss_ita', 'lr', 'lr_new', 'grad_norm', 'logit_scale')


def rows(directory):
    return [
        {k: r[k] for k in LOSSES} for r in map(json.loads, (directory / 'run/metrics.jsonl').read_text().splitlines())
    ]


def test_run_writes_what_the_contract_says(trained):
    directory, stdout = trained
    run = directory / 'run'
    assert sorted(p.name for p in run.iterdir()) == [
        'checkpoints',
        'config.yaml',
        'metrics.jsonl',
        'model',
        'tensorboard',
    ]
    assert sorted(p.name for p in (run / 'model').iterdir()) == [
        'config.yaml',
        'manifest.json',
        'text_encoder.safetensors',
        'tokenizer',
        'unet.safetensors',
        'vae.safetensors',
    ]
    assert [r['step'] for r in rows(directory)] == list(range(1, 9))
    assert sorted(p.name for p in (run / 'checkpoints').iterdir()) == ['step_3', 'step_6', 'step_8']
    assert str(run / 'model') in stdout
    assert len(CaptionSet(directory / 'data')) == 15


def test_kill_9_in_the_middle_then_resume_equals_the_uninterrupted_run(trained, tmp_path):
    directory = make_workspace(tmp_path)
    process = start_paused(LOGGED, 5, tmp_path / 'paused', 'tools/train.py', '--config', directory / 'diffdis.yaml')
    process.kill()
    process.wait()
    assert len(rows(directory)) == 5 and not (directory / 'run/model').exists()
    assert [p.name for p in (directory / 'run/checkpoints').iterdir()] == ['step_3']

    done = command('tools/train.py', '--config', directory / 'diffdis.yaml')
    assert done.returncode == 0, done.stderr
    assert 'resumed from' in done.stdout
    assert rows(directory) == rows(trained[0])
    for name in ('unet', 'vae', 'text_encoder'):
        ours, theirs = (load_file(d / f'run/model/{name}.safetensors') for d in (directory, trained[0]))
        assert ours.keys() == theirs.keys() and all(np.array_equal(ours[k], theirs[k]) for k in ours)


def test_ema_weights_are_what_is_saved(trained):
    directory, _ = trained
    state = load_file(directory / 'run/checkpoints/step_8/state.safetensors')
    model = load_file(directory / 'run/model/unet.safetensors')
    assert np.isin(
        model['conv_in.weight'].reshape(-1), state['ema.small.new']
    ).all()  # all of a UNet from scratch is new
    assert not np.array_equal(model['conv_in.weight'], state['conv_in.weight'])


def copy_checkpoint(source, target):
    target.mkdir(parents=True)
    for file in source.iterdir():
        target.joinpath(file.name).write_bytes(file.read_bytes())
    return target


def test_a_checkpoint_of_another_config_is_one_clear_line(trained, tmp_path):
    directory = make_workspace(tmp_path)
    copy_checkpoint(trained[0] / 'run/checkpoints/step_6', tmp_path / 'run/checkpoints/step_6')
    assert_one_line_error(
        command('tools/train.py', '--config', directory / 'diffdis.yaml', 'model.alignment.num_layers=3'),
        'another config',
    )


def test_damaged_and_unfinished_checkpoints_are_passed_over_with_a_warning(trained, tmp_path):
    directory = make_workspace(tmp_path)
    kept, checkpoints = trained[0] / 'run/checkpoints', tmp_path / 'run/checkpoints'
    copy_checkpoint(kept / 'step_3', checkpoints / 'step_3')
    cut = copy_checkpoint(kept / 'step_6', checkpoints / 'step_6') / 'state.safetensors'
    cut.write_bytes(cut.read_bytes()[:-100])
    flipped = copy_checkpoint(kept / 'step_8', checkpoints / 'step_8') / 'state.safetensors'
    data = bytearray(flipped.read_bytes())
    data[-50] ^= 1
    flipped.write_bytes(data)
    (checkpoints / '.step_9.elsewhere.1.tmp').mkdir()
    assert_one_line_error(
        command('tools/train.py', '--config', directory / 'diffdis.yaml', f'resume={checkpoints / "step_6"}'), 'damaged'
    )

    uncached = 'runtime.compile_cache=false'  # `trained` had its graph from the cache, or put it there
    done = command('tools/train.py', '--config', directory / 'diffdis.yaml', uncached)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stdout.splitlines() if line.startswith('warning: ')]
    assert len(warnings) == 3 and all(
        any(name in line for line in warnings) for name in ('step_6', 'step_8', '.step_9')
    )
    assert f'resumed from {checkpoints / "step_3"}' in done.stdout
    assert rows(directory)[-5:] == rows(trained[0])[-5:]


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_samples(tmp_path):
    directory = make_workspace(tmp_path)
    done = command(
        'tools/train.py',
        '--config',
        directory / 'diffdis.yaml',
        'optimizer.learning_rate=1e30',
        'optimizer.new_learning_rate=1e30',
        'optimizer.warmup_steps=0',
    )
    assert_one_line_error(done, 'step', 'the loss is', 'samples')
    assert not (directory / 'run/model').exists()
