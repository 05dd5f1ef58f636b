"""Webdataset tars, read and written with the standard library.

`KEY.png`, `KEY.txt`, `KEY.cls` and `KEY.json` form one sample. These extensions are recognised, in upper or lower case;
if a sample has several of a line, the first is used:

| image | jpg, png, jpeg, webp (open_clip's order), then the others of `transforms.IMAGE_SUFFIXES`, then img |
| caption | txt, caption, cap, text; else "caption", "text" or "txt" of the json |
| label | cls |

Texts are in UTF-8, or in the encoding of their byte order mark. An extension with a dot (`KEY.seg.png`, a mask) is
never used. Members with hidden or system names (macOS' `._KEY.jpg`, `__MACOSX/`) are ignored.
"""

import io
import json
import os
import re
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

from diffdis_ms.data.listing import in_hidden
from diffdis_ms.data.samples import (
    MAX_MEMBER_BYTES,
    Sample,
    add_skipped,
    checked_caption,
    find_files,
    prepared_samples,
    read_class_names,
)
from diffdis_ms.data.transforms import IMAGE_SUFFIXES, decode_image
from diffdis_ms.errors import BadImage, BadSample, ConfigError
from diffdis_ms.text_files import decode, lines_of, parse_json, read_text

_NAME = re.compile(r'((?:.*/)?[^./][^./]*)\.([^/]+)')  # key: everything up to the first dot after the last slash
_BLOCK = tarfile.BLOCKSIZE


class CaptionSet:
    """Samples of webdataset tars, by index. Tars are indexed once and stay packed; any number of threads may read.

    Attributes:
        paths: the tars.
        class_names: list from `classnames.txt` beside the tars or one folder up (CLIP_benchmark's layout), or None.
        skipped: dict key -> reason for samples found unusable while indexing (no image, truncated tar).
        files, folder: the tars, and their folder. checked: whether tools/prepare_data.py wrote them, so that all
            samples are good.
    """

    def __init__(self, path, require_caption=True, max_member_bytes=MAX_MEMBER_BYTES):
        """Index tars.

        Args:
            path: a directory with *.tar, one tar, or a glob pattern.
            require_caption: whether a sample without caption is bad; otherwise its caption is ''.
            max_member_bytes: a sample with a larger member is bad.

        Raises:
            ConfigError: there is no tar, a file is not a tar, or there is no sample.
        """
        self.paths = find_files(path, '*.tar', 'tar')
        self.require_caption = require_caption
        self.max_member_bytes = max_member_bytes
        self.skipped = {}
        self._samples = []  # (tar, key, {extension: (offset, size)})
        for tar in self.paths:
            self._index(tar)
        if not self._samples:
            raise ConfigError(
                f'{path}: no image in {len(self.paths)} tar file(s); expected members like 000001.png with 000001.txt'
            )
        self.files, self.folder = self.paths, self.paths[0].absolute().parent
        self.class_names = read_class_names(self.folder) or read_class_names(self.folder.parent)
        self.checked = not self.skipped and prepared_samples(self.folder) == len(self)

    def __len__(self):
        return len(self._samples)

    def read(self, i):
        """Read sample `i`; raises BadSample if its image or caption cannot be used, OSError if the tar is gone."""
        tar, key, members = self._samples[i]
        image_extension = next(e for e in _IMAGES if e in members)
        content = {}
        with open(tar, 'rb') as file:  # opened per read: thread-safe, and no limit on open files with many shards
            for extension in members:
                if extension == image_extension or extension in _USED and extension not in _IMAGES:
                    content[extension] = self._member(file, key, extension, *members[extension])
        meta = (
            parse_json(_text(key, 'json', content), 'its .json', dict, partial(BadSample, key))
            if 'json' in content
            else {}
        )
        caption = next((_text(key, e, content) for e in _CAPTIONS if e in content), None)
        if caption is None:
            caption = next((meta[name] for name in _CAPTION_KEYS if meta.get(name) is not None), None)
        caption = checked_caption(key, self._own_caption(caption), self.require_caption)
        try:
            image = decode_image(content[image_extension])
        except BadImage as e:
            raise BadSample(key, str(e)) from None
        return Sample(key, image, caption, _label(key, content) if 'cls' in content else None, meta)

    def _own_caption(self, caption):
        return caption

    def _member(self, file, key, extension, offset, size):
        if size > self.max_member_bytes:
            raise BadSample(key, f'.{extension} has {size} bytes, more than {self.max_member_bytes}')
        file.seek(offset)
        content = file.read(size)
        if len(content) != size:
            raise BadSample(key, f'.{extension} is truncated: the tar has become shorter')
        return content

    def _index(self, path):
        samples, cut = {}, {}
        members, end = _members(path)
        length = path.stat().st_size
        for name, offset, size in members:
            match = _NAME.fullmatch(name)
            if not match or in_hidden(name):
                continue
            key, extension = os.path.normpath(match[1]) if match[1].startswith('./') else match[1], match[2].lower()
            if offset + size > length:
                cut[key] = f'truncated: {path.name} ends inside it'
            elif extension in samples.setdefault(key, {}):
                cut[key] = f'two members .{extension} in {path.name}'
            else:
                samples[key][extension] = (offset, size)
        if end is not None:
            cut[f'{path.name}@{end}'] = 'the tar is damaged here, the rest is lost'
        for key, extensions in samples.items():
            if key not in cut and not any(e in extensions for e in _IMAGES):
                dotted = next((e for e in sorted(extensions) if e.rpartition('.')[2] in _IMAGES), None)
                cut[key] = (
                    f'no image: .{dotted} is not an image extension, name it .{dotted.rpartition(".")[2]}'
                    if dotted
                    else 'no image'
                )
        for key, reason in cut.items():
            add_skipped(self.skipped, key, reason, f'of {path.name}')
        self._samples += [(path, key, extensions) for key, extensions in samples.items() if key not in cut]


class RetrievalSet(CaptionSet):
    """CLIP_benchmark's tars for retrieval, with several captions in a .txt, one per line. Training uses the first."""

    def captions_of(self, i):
        """All captions of image `i`; raises BadSample like `read`."""
        tar, key, members = self._samples[i]
        extension = next((e for e in _CAPTIONS if e in members), None)
        if extension is None:
            return [self.read(i).caption]
        with open(tar, 'rb') as file:
            text = _text(key, extension, {extension: self._member(file, key, extension, *members[extension])})
        captions = [checked_caption(key, line, False) for line in lines_of(text)]
        return [caption for caption in captions if caption]

    def _own_caption(self, caption):
        return next((line for line in lines_of(caption) if line.strip()), '') if isinstance(caption, str) else caption


def open_tars(path, require_caption=True):
    """Open tars as a RetrievalSet if `dataset_type.txt` beside them or one folder up is `retrieval`, else a CaptionSet.

    The arguments are those of `CaptionSet`.
    """
    folder = find_files(path, '*.tar', 'tar')[0].absolute().parent
    for file in (folder / 'dataset_type.txt', folder.parent / 'dataset_type.txt'):
        if file.is_file():
            return (RetrievalSet if read_text(file).strip().lower() == 'retrieval' else CaptionSet)(
                path, require_caption
            )
    return CaptionSet(path, require_caption)


class TarWriter:
    """Write `00000.tar`, `00001.tar`, ... to a directory. The same samples give the same bytes.

    A shard has a temporary name until it is complete. After an error no unfinished shard remains.

        with TarWriter(directory) as writer:
            writer.write('000001', image, 'a red fox', label=3, meta={'source': 'here'})
    """

    def __init__(self, directory, samples_per_shard=1000, image_format='PNG'):
        """Args: image_format: 'PNG', or 'JPEG' (quality 95)."""
        self.directory = Path(directory)
        self.samples_per_shard = samples_per_shard
        self.image_format = image_format
        self.num_samples = 0
        self._tar: Any = None
        self._temp: Any = None
        self._shards = 0

    def __enter__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                self._finish()
        finally:
            if self._tar is not None:
                self._tar.fileobj.close()
                self._temp.unlink(missing_ok=True)

    def write(self, key, image, caption, label=None, meta=None):
        """Append a sample.

        Args:
            key: unique name without dot or slash.
            image: PIL RGB image.
            caption: string.
            label: int or None.
            meta: JSON-able dict or None.
        """
        if not key or '.' in key or '/' in key:
            raise ValueError(f'key {key!r}: a key must not be empty, and must not contain a dot or slash')
        if self._tar is None:
            self._temp = self.directory / f'.{self._shards:05d}.tar.{os.getpid()}'
            self._tar = tarfile.open(fileobj=open(self._temp, 'wb'), mode='w', format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (closed by close)
        buffer = io.BytesIO()
        image.save(buffer, self.image_format, **({'quality': 95} if self.image_format == 'JPEG' else {}))
        self._add(key, 'jpg' if self.image_format == 'JPEG' else 'png', buffer.getvalue())
        self._add(key, 'txt', caption.encode('utf-8'))
        if label is not None:
            self._add(key, 'cls', str(label).encode())
        if meta is not None:
            self._add(
                key, 'json', json.dumps(meta, ensure_ascii=False, sort_keys=True).encode('utf-8', 'backslashreplace')
            )
        self.num_samples += 1
        if self.num_samples % self.samples_per_shard == 0:
            self._finish()

    def _add(self, key, extension, content):
        info = tarfile.TarInfo(f'{key}.{extension}')  # defaults of TarInfo: mtime, uid and gid 0, mode 644
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))

    def _finish(self):
        if self._tar is None:
            return
        file = self._tar.fileobj
        self._tar.close()
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(self._temp, self.directory / f'{self._shards:05d}.tar')
        self._tar = None
        self._shards += 1


_IMAGES = (*(s[1:] for s in IMAGE_SUFFIXES), 'img')
_CAPTIONS = ('txt', 'caption', 'cap', 'text')
_CAPTION_KEYS = ('caption', 'text', 'txt')
_USED = {*_IMAGES, *_CAPTIONS, 'cls', 'json'}


def _members(path):
    """List regular members as [(name, offset, size)], and the offset where the tar is damaged.

    The offset is None if the tar is intact or truncated within a member.
    """
    found = []
    end = 0
    try:
        with tarfile.open(path, 'r:') as tar:
            while True:
                member = tar.next()
                if member is None:
                    break
                if member.size < 0 or tar.offset <= end:
                    return found, end
                end = tar.offset
                if member.isreg() and not member.issparse():
                    found.append((member.name, member.offset_data, member.size))
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  (tarfile would keep every header)
    except (tarfile.TarError, ValueError, OverflowError) as e:
        if not end:
            raise ConfigError(
                f'{path} is not an uncompressed tar file ({" ".join(str(e).split())}); '
                'write it again, or gunzip it if it is compressed'
            ) from None
    with open(path, 'rb') as file:  # tarfile mistakes a broken header for the end
        file.seek(end)
        block = file.read(_BLOCK)
    return found, end if block.strip(b'\0') else None


def _text(key, extension, content):
    return decode(content[extension], f'its .{extension}', partial(BadSample, key))


def _label(key, content):
    try:
        return int(_text(key, 'cls', content))
    except ValueError as e:
        raise e if isinstance(e, BadSample) else BadSample(key, '.cls is not an integer') from None
