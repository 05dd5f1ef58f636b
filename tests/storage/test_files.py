"""Directories are written whole or not at all."""

import os
import socket
import subprocess

import pytest

from diffdis_ms.storage.files import whole_directory

FLUSHED = pytest.mark.parametrize('flushed', [True, False])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@FLUSHED
def test_it_appears_when_the_block_ends_and_replaces_what_was_there(tmp_path, flushed):
    for text in ('one', 'two'):
        with whole_directory(tmp_path / 'out', flushed) as temporary:
            (temporary / 'inner').mkdir()
            (temporary / 'inner' / text).write_text(text)
            assert not (tmp_path / 'out' / 'inner' / text).exists()
        assert names(tmp_path) == ['out'] and names(tmp_path / 'out' / 'inner') == [text]


@FLUSHED
def test_an_error_leaves_everything_as_it_was(tmp_path, flushed):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'old').write_text('x')
    with pytest.raises(KeyError), whole_directory(tmp_path / 'out', flushed) as temporary:
        (temporary / 'new').write_text('y')
        raise KeyError
    assert names(tmp_path) == ['out'] and names(tmp_path / 'out') == ['old']


def test_a_file_and_a_link_are_replaced_but_not_what_the_link_points_to(tmp_path):
    (tmp_path / 'file').write_text('x')
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'kept').write_text('x')
    (tmp_path / 'link').symlink_to('elsewhere')
    for name in ('file', 'link'):
        with whole_directory(tmp_path / name) as temporary:
            (temporary / 'new').write_text('y')
    assert names(tmp_path) == ['elsewhere', 'file', 'link'] and names(tmp_path / 'elsewhere') == ['kept']
    assert names(tmp_path / 'file') == names(tmp_path / 'link') == ['new'] and not (tmp_path / 'link').is_symlink()


def test_what_a_killed_process_of_this_machine_left_is_removed_and_nothing_else(tmp_path):
    dead = subprocess.Popen(['true'])
    dead.wait()
    here = socket.gethostname()
    left, elsewhere = f'.out.{here}.{dead.pid}.tmp', f'.out.other.{dead.pid}.tmp'
    of_a_live_one = f'.out.{here}.{os.getppid()}.tmp'
    for name in (left, of_a_live_one, elsewhere):
        (tmp_path / name).mkdir()
    with whole_directory(tmp_path / 'out'):
        pass
    assert names(tmp_path) == sorted([of_a_live_one, elsewhere, 'out'])
