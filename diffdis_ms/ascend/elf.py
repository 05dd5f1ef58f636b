"""As much of a 64-bit x86 ELF file as `registry.py` needs: sections, symbols, string literals and who calls what."""

import re
import struct
from pathlib import Path

from diffdis_ms.errors import ConfigError

X86_64 = 62
LOAD_RSI = rb'\x48\x8d\x35'  # lea literal(%rip), %rsi: the second argument of the call that follows
LOAD_ANY = rb'[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x35\x3d]'
READ_SLOT = rb'\x48\x8b[\x05\x0d\x15\x1d\x35\x3d]'


class Elf:
    """One shared library.

    Attributes:
        code, base: the bytes of .text and the address of the first of them.
        symbols: {name: address} of what is defined. stubs: {name: address} of the stubs for what is imported.
        slots: {address: name} of the table of global addresses.

    Raises:
        ConfigError: not an x86-64 library.
    """

    def __init__(self, path):
        self.data = data = Path(path).read_bytes()
        if data[:5] != b'\x7fELF\x02' or struct.unpack_from('<H', data, 0x12)[0] != X86_64:
            raise ConfigError(f'{path} is not an x86-64 library; operator coverage is read from the x86-64 wheel')
        (at,) = struct.unpack_from('<Q', data, 0x28)
        number, names = struct.unpack_from('<HH', data, 0x3C)
        headers = [struct.unpack_from('<IIQQQQIIQQ', data, at + 64 * i) for i in range(number)]
        self.sections = {
            self._text(headers[names][4] + h[0]): (h[3], h[4], h[5]) for h in headers
        }  # address, offset, size
        self.base, offset, size = self.sections['.text']
        self.code = data[offset : offset + size]
        _, strings, _ = self.sections['.dynstr']
        self.names, self.symbols = [], {}
        for name, _, _, section, value, _ in self._records('.dynsym', '<IBBHQQ'):
            self.names.append(self._text(strings + name))
            if section:
                self.symbols[self.names[-1]] = value
        first = self.sections.get('.plt', (0, 0, 0))[0]
        self.stubs = {
            self.names[info >> 32]: first + 16 * (i + 1)
            for i, (_, info, _) in enumerate(self._records('.rela.plt', '<QQq'))
        }
        self.slots = {
            slot: self.names[info >> 32]
            for slot, info, _ in self._records('.rela.dyn', '<QQq')
            if info & 0xFFFFFFFF in (1, 6) and info >> 32
        }

    def _records(self, section, layout):
        _, offset, size = self.sections.get(section, (0, 0, 0))
        return struct.iter_unpack(layout, self.data[offset : offset + size])

    def _text(self, offset):
        return self.data[offset : self.data.index(b'\0', offset)].decode('latin1')

    def target(self, i, length):
        """The address that an instruction at code[i], whose last 4 bytes are relative, points to."""
        return self.base + i + length + struct.unpack_from('<i', self.code, i + length - 4)[0]

    def literal(self, address):
        """The string at an address of .rodata, or None."""
        start, offset, size = self.sections['.rodata']
        return self._text(offset + address - start) if start <= address < start + size else None

    def loads(self, pattern, low=0, high=None):
        """(position, literal) of each instruction of this pattern in code[low:high] that loads a string's address."""
        for match in re.compile(pattern).finditer(self.code, max(low, 0), len(self.code) if high is None else high):
            if match.start() + 7 <= len(self.code):
                text = self.literal(self.target(match.start(), 7))
                if text is not None:
                    yield match.start(), text

    def names_loaded(self, low, high):
        """Identifiers loaded as second argument in code[low:high], in order."""
        return [text for _, text in self.loads(LOAD_RSI, low, high) if re.fullmatch(r'[A-Za-z_]\w*', text)]

    def symbol_read(self, low, high):
        """The symbol whose address the first instruction of code[low:high] that reads a slot reads, or None."""
        for match in re.compile(READ_SLOT).finditer(self.code, low, high):
            name = self.slots.get(self.target(match.start(), 7))
            if name:
                return name
        return None

    def calls(self, targets, low=0, high=None):
        """(position, address) of each direct call in code[low:high]; `targets` None: of any address inside .text."""
        for match in re.compile(b'\xe8').finditer(self.code, low, len(self.code) if high is None else high):
            i = match.start()
            if i + 5 <= len(self.code):
                address = self.target(i, 5)
                if address in targets if targets is not None else self.base <= address < self.base + len(self.code):
                    yield i, address
