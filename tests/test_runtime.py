"""The Ascend context, as far as it can be seen without one: which settings reach MindSpore on which chip."""

import mindspore as ms
import pytest

from diffdis_ms.config import RuntimeConfig
from diffdis_ms.errors import ConfigError
from diffdis_ms.models.attention import use_flash
from diffdis_ms.runtime import context as runtime


@pytest.fixture
def ascend(monkeypatch):
    """A machine with a chip: set_device succeeds, what is set is recorded. Returns start(chip, **fields) -> record."""
    record = {}
    monkeypatch.setattr(ms, 'set_context', lambda **values: record.update(values))
    monkeypatch.setattr(ms, 'set_device', lambda device: record.update(device=device))
    monkeypatch.setattr(ms, 'set_deterministic', lambda on: record.update(deterministic=on))
    monkeypatch.setattr(ms.runtime, 'set_memory', lambda **values: record.update(values))
    precision = ms.device_context.ascend.op_precision
    monkeypatch.setattr(precision, 'conv_allow_hf32', lambda on: record.update(hf32=on))
    monkeypatch.setattr(runtime, '_device', None)
    monkeypatch.setattr(runtime.os, 'environ', {})

    def start(chip, precision='fp16', **fields):
        monkeypatch.setattr(runtime, 'ascend_chip', lambda: chip)
        runtime.setup('Ascend', RuntimeConfig(**fields), precision)
        record['environment'] = {k: v for k, v in runtime.os.environ.items() if k.startswith(('HCCL', 'MS_'))}
        record['flash'] = use_flash(False)
        return record

    yield start
    use_flash(False)


@pytest.mark.parametrize(
    'chip, flash', [('ascend910', False), ('ascend910b', True), ('ascend910_93', True), ('', False)]
)
def test_the_attention_kernel_is_used_where_the_chip_has_it(ascend, chip, flash):
    assert ascend(chip)['flash'] is flash


def test_float32_convolutions_are_float32(ascend):
    assert ascend('ascend910b')['hf32'] is False


def test_the_attention_kernel_can_be_left_out(ascend):
    assert ascend('ascend910b', flash_attention=False)['flash'] is False


def test_settings_reach_mindspore(ascend):
    found = ascend(
        'ascend910b',
        jit_level='O1',
        overflow_mode='saturation',
        memory_limit_gb=28.5,
        hccl_connect_timeout=1200,
        hccl_exec_timeout=3000,
        deterministic=True,
    )
    assert found['device'] == 'Ascend' and found['mode'] == ms.GRAPH_MODE and found['jit_config'] == {'jit_level': 'O1'}
    assert found['max_size'] == '28.5GB' and found['deterministic'] is True
    assert found['environment'] == {
        'HCCL_CONNECT_TIMEOUT': '1200',
        'HCCL_EXEC_TIMEOUT': '3000',
        'MS_ASCEND_CHECK_OVERFLOW_MODE': 'SATURATION_MODE',
    }


def test_defaults_leave_mindspores_own_settings(ascend):
    found = ascend('ascend910b')
    assert 'jit_config' not in found and 'max_size' not in found and 'deterministic' not in found
    assert found['environment'] == {'HCCL_CONNECT_TIMEOUT': '600'}


def test_a_910_saturates(ascend):
    with pytest.raises(ConfigError, match='runtime.overflow_mode'):
        ascend('ascend910', overflow_mode='infnan')
    assert ascend('ascend910', overflow_mode='saturation')['device'] == 'Ascend'


def test_a_910_has_no_bf16(ascend):
    with pytest.raises(ConfigError, match='train.precision: .* fp16'):
        ascend('ascend910', precision='bf16')
    assert ascend('ascend910b', precision='bf16')['device'] == 'Ascend'


def test_the_environment_wins_over_our_default_and_a_field_over_the_environment():
    environ = {'HCCL_CONNECT_TIMEOUT': '77'}
    assert runtime.ascend_environment(RuntimeConfig(), environ)['HCCL_CONNECT_TIMEOUT'] == '77'
    assert runtime.ascend_environment(RuntimeConfig(hccl_connect_timeout=9), environ)['HCCL_CONNECT_TIMEOUT'] == '9'


def test_no_ascend_here_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(runtime, '_device', None)

    def refuse(device):
        raise RuntimeError(f'Unsupported device target {device}.\nmore lines')

    monkeypatch.setattr(ms, 'set_device', refuse)
    with pytest.raises(ConfigError, match='tools/doctor.py') as error:
        runtime.setup('Ascend')
    assert '\n' not in str(error.value)


def test_mindspores_own_compile_cache_is_refused(monkeypatch):
    monkeypatch.setattr(runtime, '_device', None)
    monkeypatch.setenv('MS_COMPILER_CACHE_ENABLE', '1')
    with pytest.raises(ConfigError, match='MS_COMPILER_CACHE_ENABLE'):
        runtime.setup('CPU')
