"""The log of a run: metrics.jsonl and TensorBoard files."""

import json
import math
import time

import mindspore as ms
import numpy as np
from mindspore import Tensor

from diffdis_ms.config import to_yaml
from diffdis_ms.errors import ConfigError
from diffdis_ms.storage.files import whole_file
from diffdis_ms.text_files import lines_of, parse_json, read_text


class MetricsLog:
    """Write metrics.jsonl, one object per logged step, and the same values as TensorBoard scalars.

    A resumed run deletes the entries after its checkpoint.

    Args:
        output: the run's directory. config: Config. schedules: {'lr', 'lr_new'}. step: first step of this session.
        samples_a_step: samples per step over all processes.
        writes: False in all processes but the first, which write nothing but still compute the displayed values.
    """

    def __init__(self, output, config, schedules, step, samples_a_step, writes=True):
        self.schedules, self.samples_a_step, self.file, self.board = schedules, samples_a_step, None, None
        self.mark = time.monotonic(), step
        if not writes:
            return
        path = output / 'metrics.jsonl'
        kept = _lines_up_to(path, step) if path.exists() and step else []
        with whole_file(path) as file:
            file.write(''.join(line + '\n' for line in kept).encode())
        self.file = open(path, 'a', encoding='utf-8')  # noqa: SIM115 (closed by close)
        if config.train.tensorboard:
            from tensorboardX import SummaryWriter  # takes seconds where torch is installed, which it imports

            self.board = SummaryWriter(str(output / 'tensorboard'), purge_step=step or None)
            self.board.add_text('config', f'```yaml\n{to_yaml(config)}\n```', step)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.file is not None:
            self.file.close()
        if self.board is not None:
            self.board.close()

    def write(self, step, outputs, logit_scale, loss_scale=1.0, skipped_steps=0):
        """Log a step; returns the values for the progress bar."""
        now = time.monotonic()
        rate = (step - self.mark[1]) * self.samples_a_step / max(now - self.mark[0], 1e-9)
        self.mark = now, step
        loss, loss_ig, loss_ita, norm = outputs
        at = Tensor(max(step - 1 - skipped_steps, 0), ms.float32)  # a skipped step makes no update
        lr, lr_new = (float(self.schedules[k](at).asnumpy()) for k in ('lr', 'lr_new'))
        row = {
            'step': step,
            'loss': loss,
            'loss_ig': loss_ig,
            'loss_ita': loss_ita,
            'lr': lr,
            'lr_new': lr_new,
            'grad_norm': norm,
            'loss_scale': loss_scale,
            'skipped_steps': skipped_steps,
            'samples_per_second': rate,
            'logit_scale': logit_scale,
        }
        if self.file is not None:
            row = write_row(self.file, row)
        if self.board is not None:
            for key, value in row.items():
                if key != 'step' and value is not None:
                    self.board.add_scalar(key, value, step)
        return {'loss': f'{loss:.4f}', 'ig': f'{loss_ig:.4f}', 'ita': f'{loss_ita:.4f}', 'samples/s': f'{rate:.3g}'}

    def pictures(self, step, images, captions):
        """Log sample images of a step: a list of PIL images of one size, with their captions."""
        if self.board is not None:
            self.board.add_images(
                'samples', np.stack([np.asarray(image.convert('RGB')) for image in images]), step, dataformats='NHWC'
            )
            self.board.add_text(
                'captions', '\n'.join(f'{i + 1}. {caption}' for i, caption in enumerate(captions)), step
            )


def write_row(file, row):
    """Append a row of metrics, {name: number or None}, to an open metrics.jsonl; returns it as written."""
    # JSON has no infinity, which the gradients' norm is at an fp16 overflow; an autoencoder has no logit scale
    row = {key: value if value is not None and math.isfinite(value) else None for key, value in row.items()}
    file.write(json.dumps(row) + '\n')
    file.flush()
    return row


def _lines_up_to(path, step):
    """Read the lines of metrics.jsonl up to a step. An incomplete last line, left by a killed run, is dropped.

    Raises:
        ConfigError: another line is damaged.
    """
    text, kept = read_text(path), []
    for number, line in enumerate(lines_of(text[: text.rfind('\n') + 1]), 1):
        logged = parse_json(line, f'{path}, line {number}').get('step')
        if type(logged) is not int:
            raise ConfigError(f'{path}, line {number} is damaged: it has no step; repair or remove it')
        if logged <= step:
            kept.append(line)
    return kept
