"""Read x86-64 shared libraries: symbols, string literals and function calls. pyelftools reads the file format."""

import re
import struct
from itertools import islice

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from diffdis_ms.errors import ConfigError

LOAD_RSI = rb'\x48\x8d\x35'  # lea literal(%rip), %rsi: the second argument of the call that follows
LOAD_ANY = rb'[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x35\x3d]'
READ_SLOT = rb'\x48\x8b[\x05\x0d\x15\x1d\x35\x3d]'
CALL = rb'\xe8'
ABSOLUTE, GLOBAL_SLOT = 1, 6  # R_X86_64_64, R_X86_64_GLOB_DAT: relocations that put a symbol's address into a slot


class Library:
    """A shared library.

    Attributes:
        code, base: the bytes of .text and the address of the first byte.
        symbols: {name: address} of defined symbols. stubs: {name: address} of the stubs for imported ones.
        slots: {address: name} of the table of global addresses.

    Raises:
        ConfigError: the file is not an x86-64 library.
    """

    def __init__(self, path):
        with open(path, 'rb') as file:
            try:
                elf = ELFFile(file)
            except ELFError:
                raise ConfigError(f'{path} is not a shared library') from None
            if elf['e_machine'] != 'EM_X86_64':
                raise ConfigError(f'{path} is not an x86-64 library; the table is made from the x86-64 wheel')
            text, rodata = elf.get_section_by_name('.text'), elf.get_section_by_name('.rodata')
            self.code, self.base = text.data(), text['sh_addr']
            self.rodata, self.rodata_base = rodata.data(), rodata['sh_addr']
            symbols = list(elf.get_section_by_name('.dynsym').iter_symbols())
            names = [symbol.name for symbol in symbols]
            self.symbols = {s.name: s['st_value'] for s in symbols if s['st_shndx'] != 'SHN_UNDEF'}
            stubs, first = _relocations(elf, '.rela.plt'), elf.get_section_by_name('.plt')['sh_addr']
            self.stubs = {names[r['r_info_sym']]: first + 16 * (i + 1) for i, r in enumerate(stubs)}
            self.slots = {
                r['r_offset']: names[r['r_info_sym']]
                for r in _relocations(elf, '.rela.dyn')
                if r['r_info_type'] in (ABSOLUTE, GLOBAL_SLOT) and r['r_info_sym']
            }

    def target(self, i, length):
        """The address that an instruction at code[i], whose last 4 bytes are relative, points to."""
        return self.base + i + length + struct.unpack_from('<i', self.code, i + length - 4)[0]

    def literal(self, address):
        """The string at an address of .rodata, or None."""
        at = address - self.rodata_base
        if not 0 <= at < len(self.rodata):
            return None
        return self.rodata[at : self.rodata.index(b'\0', at)].decode('latin1')

    def loads(self, pattern, low=0, high=None):
        """(position, literal) of each instruction of this pattern in code[low:high] that loads a string's address."""
        for i in self._found(pattern, 7, low, high):
            text = self.literal(self.target(i, 7))
            if text is not None:
                yield i, text

    def names_loaded(self, low, high):
        """Identifiers loaded as second argument in code[low:high], in order."""
        return [text for _, text in self.loads(LOAD_RSI, low, high) if re.fullmatch(r'[A-Za-z_]\w*', text)]

    def symbol_read(self, low, high):
        """The symbol in the first slot that an instruction in code[low:high] reads, or None."""
        names = (self.slots.get(self.target(i, 7)) for i in self._found(READ_SLOT, 7, low, high))
        return next(filter(None, names), None)

    def calls(self, targets, low=0, high=None):
        """(position, address) of each direct call in code[low:high] of one of these addresses."""
        for i in self._found(CALL, 5, low, high):
            if self.target(i, 5) in targets:
                yield i, self.target(i, 5)

    def first_calls(self, count, low, high):
        """Addresses in .text of the first `count` direct calls in code[low:high]."""
        inside = range(self.base, self.base + len(self.code))
        return [address for _, address in islice(self.calls(inside, low, high), count)]

    def _found(self, pattern, length, low, high):
        """Positions in code[low:high] of instructions that match a pattern and have `length` bytes."""
        for match in re.compile(pattern).finditer(self.code, max(low, 0), len(self.code) if high is None else high):
            if match.start() + length <= len(self.code):
                yield match.start()


def _relocations(elf, section):
    found = elf.get_section_by_name(section)
    return found.iter_relocations() if found else ()
