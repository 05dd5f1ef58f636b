"""Stub libraries in place of CANN's, with which MindSpore's Ascend backend starts without CANN and without an NPU.

MindSpore's plugin for Ascend links to CANN's libraries and looks up more of their functions when it starts. Their names
are read here from the plugin's own symbol tables. In the stubs every function returns 0 and does nothing, except for
the classes of `ge_stub.cc`, whose objects MindSpore reads back. This is enough for a dry run (`simulation.py`).
"""

import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path

from diffdis_ms.errors import ConfigError

SOURCE = Path(__file__).with_name('ge_stub.cc')
PROGRAMS = ('g++', 'gcc', 'nm', 'readelf', 'strings')
# fmt: off
ROOTS = (  # of MindSpore's lib/plugin: what is loaded for Ascend
    'libmindspore_ascend.so.2', 'libmindspore_ops_ascend.so', 'ascend/libmindspore_ascend_res_manager.so',
    'ascend/libd_collective.so', 'ascend/libmindspore_graph_ir.so', 'ascend/libhccl_plugin.so',
)
OPENED = (  # libraries of CANN that are opened by name at run time
    'libopapi.so', 'libnnopbase.so', 'libacl_op_compiler.so', 'libacl_tdt_channel.so', 'libruntime.so', 'libhccl.so',
)
# fmt: on
LOOKED_UP = re.compile(  # functions of CANN that are looked up by name at run time
    r'acl[A-Z]\w+|acl(rt|op|mdl|tdt|prof|nn)[A-Z]\w+|Hccl[A-Z]\w+|Hcom[A-Z]\w+|hcom\w+|rt[A-Z]\w+'
)


def make_stubs(home):
    """Write the stubs of the installed MindSpore to `home`/lib64, and `home`/opp, where MindSpore looks for operators.

    Args:
        home: Path of a new directory, used as ASCEND_HOME_PATH. MindSpore cuts its path after "cann" or "latest", so
            that it must end with one of these words, and hold none of them before.

    Raises:
        ConfigError: a compiler or a program of binutils is missing, this is not an x86-64 machine with MindSpore's
            plugin for Ascend, or the stubs cannot be compiled.
    """
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        raise ConfigError(
            f'the dry run compiles stub libraries and needs {", ".join(missing)}: install g++ with binutils'
            ' (Debian, Ubuntu: apt install g++)'
        )
    lib = Path(importlib.util.find_spec('mindspore').origin).parent / 'lib'
    if absent := [name for name in ROOTS if not (lib / 'plugin' / name).is_file()]:
        raise ConfigError(
            f'the dry run needs MindSpore\'s plugin for Ascend, which this one ({platform.machine()}) does not have:'
            f' {lib / "plugin" / absent[0]} is missing'
        )
    libraries, functions = _needed(lib)
    work, target = home / 'build', home / 'lib64'
    work.mkdir(parents=True), target.mkdir()
    _compile(
        'g++', '-std=c++17', '-O1', '-fPIC', '-w', '-fvisibility=hidden', '-D_GLIBCXX_USE_CXX11_ABI=0', '-c', SOURCE,
        '-o', work / 'ge.o',
    )  # fmt: skip
    functions -= set(re.findall(r' [TWV] (\S+)', _output('nm', work / 'ge.o')))
    (work / 'rest.c').write_text(''.join(f'long {name}(void) {{ return 0; }}\n' for name in sorted(functions)))
    _compile('gcc', '-O1', '-fPIC', '-w', '-fno-builtin', '-c', work / 'rest.c', '-o', work / 'rest.o')
    _compile(
        'g++', '-shared', work / 'rest.o', work / 'ge.o', '-ldl', '-Wl,-soname,libstub.so', '-o', target / 'libstub.so'
    )
    for name in sorted(libraries):
        options = f'-Wl,-soname,{name},--no-as-needed,-rpath,$ORIGIN'
        _compile('gcc', '-shared', '-x', 'c', '/dev/null', '-o', target / name, options, f'-L{target}', '-lstub')
    hccl = home / 'opp/built-in/op_impl/ai_core/tbe/hccl'  # MindSpore asks this Python package for its version
    hccl.mkdir(parents=True)
    (hccl / '__init__.py').write_text('')
    (hccl / 'sys_version.py').write_text("__sys_version__ = '8.5'\n")


def _needed(lib):
    """(names of libraries, names of functions) that MindSpore's plugin needs and neither it nor the system has."""
    local = {path.name: path for d in ('plugin/ascend', 'plugin', '.') for path in (lib / d).glob('*.so*')}
    system = {
        m[1]: Path(m[2]) for m in re.finditer(r'^\s+(\S+) .*=> (\S+)', _output('/sbin/ldconfig', '-p'), re.MULTILINE)
    }
    seen, absent, todo = {}, set(OPENED), [lib / 'plugin' / name for name in ROOTS]
    while todo:
        path = todo.pop()
        if path.name in seen:
            continue
        seen[path.name] = path
        for name in re.findall(r'\(NEEDED\).*\[(.*?)\]', _output('readelf', '-dW', path)):
            if name in local:
                todo.append(local[name])
            elif name in system:
                seen.setdefault(name, system[name])
            else:
                absent.add(name)
    undefined, defined = set(), set()
    for path in [*seen.values(), *lib.parent.glob('_c_expression*.so')]:
        for line in _output('nm', '-D', path).splitlines():
            kind, name = line.split()[-2:]
            if kind not in 'Uvw':
                defined.add(name.split('@')[0])
            elif kind == 'U' and '@' not in name and path.is_relative_to(lib):
                undefined.add(name)
    names = {s for name in ROOTS for s in _output('strings', '-n', '6', lib / 'plugin' / name).splitlines()}
    names = {s for s in names if LOOKED_UP.fullmatch(s)}
    names |= {f'{s}GetWorkspaceSize' for s in names if s.startswith('aclnn')}
    return absent, {name for name in (undefined - defined) | names if not re.match(r'_?Py[A-Z_]', name)}


def _output(*command):
    return subprocess.run([str(x) for x in command], capture_output=True, text=True, check=True).stdout


def _compile(*command):
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True)
    if done.returncode:
        line = next((line for line in done.stderr.splitlines() if 'error' in line), done.stderr.strip())
        raise ConfigError(f'the stub libraries of the dry run cannot be compiled: {command[0]}: {line}')
