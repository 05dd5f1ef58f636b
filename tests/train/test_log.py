"""What a run leaves for its reader: metrics.jsonl and TensorBoard's files."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from diffdis_ms.errors import ConfigError
from diffdis_ms.train.log import MetricsLog
from diffdis_ms.train.optim import build_schedule
from tests.helpers import tiny_run


def events(directory):
    """{tag: [value]} of TensorBoard's files: records of u64 length, u32 checksum, an Event, u32 checksum."""
    found = {}
    for path in sorted(directory.glob('events.*')):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], 'little')
            for value in Event.FromString(data[at + 12 : at + 12 + size]).summary.value:
                found.setdefault(value.tag, []).append(value)
            at += 16 + size
    return found


def make_log(directory, step=0, writes=True):
    config = tiny_run()
    schedules = {name: build_schedule(config, rate) for name, rate in (('lr', 1e-5), ('lr_new', 1e-4))}
    return MetricsLog(directory, config, schedules, step, samples_a_step=8, writes=writes)


def rows(directory):
    return [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]


def test_steps_pictures_and_the_config_are_there_and_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    with make_log(tmp_path) as log:
        for step in (1, 2, 3):
            shown = log.write(step, [0.5 * step, 0.25, 0.25, 1.0], 14.0, 1024.0, 1)
        log.pictures(3, [Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue')], ['a <b>', 'c'])
    assert shown['loss'] == '1.5000'
    assert [r['step'] for r in rows(tmp_path)] == [1, 2, 3] and rows(tmp_path)[0]['loss_scale'] == 1024.0
    found = events(tmp_path / 'tensorboard')
    assert [value.simple_value for value in found['loss']] == [0.5, 1.0, 1.5]
    assert len(found['samples']) == 1 and found['samples'][0].image.height > 0
    assert any(
        'batch_size: 4' in value.tensor.string_val[0].decode()
        for tag, values in found.items()
        if 'config' in tag
        for value in values
    )
    with make_log(tmp_path, step=2) as log:
        log.write(3, [9.0, 0.25, 0.25, 1.0], 14.0)
    assert [r['loss'] for r in rows(tmp_path)] == [0.5, 1.0, 9.0]


def test_what_an_objective_does_not_have_and_what_is_not_finite_is_null(tmp_path):
    with make_log(tmp_path) as log:
        log.write(1, [0.5, 0.5, 0.0, math.inf], None)
    assert rows(tmp_path)[0]['logit_scale'] is None and rows(tmp_path)[0]['grad_norm'] is None
    assert 'logit_scale' not in events(tmp_path / 'tensorboard')


def test_rates_are_those_of_the_updates_not_of_the_steps_that_were_skipped(tmp_path):
    config = tiny_run()
    config.optimizer.warmup_steps = 10
    schedules = {name: build_schedule(config, rate) for name, rate in (('lr', 1e-5), ('lr_new', 1e-4))}
    with MetricsLog(tmp_path, config, schedules, 0, samples_a_step=8) as log:
        for step, skipped in ((1, 0), (2, 1), (3, 1), (4, 1), (9, 5), (30, 5)):
            log.write(step, [0.5, 0.25, 0.25, 1.0], 14.0, 1024.0, skipped)
    # a step that is skipped shows the rate of the last update
    assert np.allclose([row['lr'] for row in rows(tmp_path)], [0, 0, 1e-6, 2e-6, 3e-6, 1e-5])
    assert np.allclose([row['lr_new'] for row in rows(tmp_path)], [0, 0, 1e-5, 2e-5, 3e-5, 1e-4])


def test_what_a_killed_run_left_of_a_line_is_dropped_and_other_damage_is_one_clear_line(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    with make_log(tmp_path, step=2):
        pass
    assert [row['step'] for row in rows(tmp_path)] == [1, 2]
    for line in ('{"step": 1, "lo', '[1]', '{"loss": 1.0}', '{"step": "one"}', '[' * 100000, ''):
        path.write_text(line + '\n{"step": 2, "loss": 2.0}\n')
        with pytest.raises(ConfigError, match='metrics.jsonl, line 1 ') as error:
            make_log(tmp_path, step=2)
        assert '\n' not in str(error.value)
    path.write_bytes('{"step": 1, "note": "é"}\n'.encode('latin-1'))
    with pytest.raises(ConfigError, match='not UTF-8'):
        make_log(tmp_path, step=2)


def test_other_processes_write_nothing(tmp_path):
    with make_log(tmp_path, writes=False) as log:
        assert log.write(1, [0.5, 0.5, 0.0, 1.0], None)['loss'] == '0.5000'
        log.pictures(1, [Image.new('RGB', (8, 8))], ['a'])
    assert not any(tmp_path.iterdir())
