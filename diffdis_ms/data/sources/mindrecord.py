"""Image and caption pairs in MindRecord files."""

import io
import json
from pathlib import Path
from typing import Any

from diffdis_ms.data.samples import MAX_MEMBER_BYTES, Sample, checked_caption, prepared_samples, read_class_names
from diffdis_ms.data.sources.mindrecord_file import SUFFIX, Records, close_writer, open_writer
from diffdis_ms.data.transforms import decode_image
from diffdis_ms.errors import BadImage, BadSample, ConfigError

IMAGE_FIELDS, CAPTION_FIELDS = ('image', 'jpg', 'png', 'jpeg', 'webp', 'img'), ('caption', 'text', 'txt')
_SCHEMA = {
    'key': {'type': 'string'},
    'image': {'type': 'bytes'},
    'caption': {'type': 'string'},
    'label': {'type': 'int32'},
    'meta': {'type': 'string'},
}


class MindRecordSet(Records):
    """Samples of MindRecord files, by index. Images are encoded as in image files.

    Attributes:
        class_names: as for CaptionSet, or None. checked: tools/prepare_data.py wrote them.
    """

    def __init__(self, path, max_member_bytes=MAX_MEMBER_BYTES):
        """Args:
            path: see `Records`.
            max_member_bytes: samples with more bytes are bad.

        Raises:
            ConfigError: see `Records`; or a file has no image or caption field.
        """
        super().__init__(path)
        self.max_member_bytes = max_member_bytes
        self._names = [_image_and_caption(file, *fields) for file, fields in zip(self.paths, self._fields, strict=True)]
        self.class_names = read_class_names(self.folder) or read_class_names(self.folder.parent)
        self.checked = not self.skipped and prepared_samples(self.folder) == len(self)

    def read(self, i):
        """Read sample `i`; raises BadSample if its row, image or caption cannot be used, OSError if the file is
        gone."""
        number, _, text_size, _, blob_size = self._rows[i].tolist()
        image_field, caption_field = self._names[number]
        key = f'{self.paths[number].name}:{i}'
        if text_size + blob_size > self.max_member_bytes:
            raise BadSample(key, f'{text_size + blob_size} bytes, more than {self.max_member_bytes}')
        try:
            fields, blobs = self.row(i)
        except ValueError:
            raise BadSample(key, 'the record is damaged') from None
        key = fields['key'] if isinstance(fields.get('key'), str) and fields['key'] else key
        caption = checked_caption(key, fields.get(caption_field))
        try:
            image = decode_image(blobs[image_field])
        except BadImage as e:
            raise BadSample(key, str(e)) from None
        label = fields.get('label')
        label = label if type(label) is int and label >= 0 else None
        return Sample(key, image, caption, label, _meta(fields.get('meta')))


class MindRecordWriter:
    """Write `00000.mindrecord`, `00001.mindrecord`, ... with their index files. Use it like `TarWriter`."""

    def __init__(self, directory, samples_per_shard=5000, image_format='JPEG'):
        """Args: image_format: 'JPEG' (quality 95), or 'PNG'."""
        self.directory, self.samples_per_shard, self.image_format = Path(directory), samples_per_shard, image_format
        self.num_samples = 0
        self._rows, self._shards = [], 0
        self._writer: Any = None

    def __enter__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self._finish()

    def write(self, key, image, caption, label=None, meta=None):
        """Append a sample; arguments as for `TarWriter.write`."""
        buffer = io.BytesIO()
        image.save(buffer, self.image_format, **({'quality': 95} if self.image_format == 'JPEG' else {}))
        if self._writer is None:
            self._open(3 * image.width * image.height)
        label = -1 if label is None else int(label)
        meta = json.dumps(meta or {}, sort_keys=True)  # in ASCII, because names in a tar may contain any bytes
        row = {'key': key, 'image': buffer.getvalue(), 'caption': caption, 'label': label, 'meta': meta}
        self._rows.append(row)
        self.num_samples += 1
        if len(self._rows) == 100:
            self._flush()
        if self.num_samples % self.samples_per_shard == 0:
            self._finish()

    def _open(self, pixel_bytes):
        self._writer = open_writer(self.directory / f'{self._shards:05d}{SUFFIX}', _SCHEMA, 'key', 2 * pixel_bytes)

    def _flush(self):
        if self._writer is not None and self._rows:
            self._writer.write_raw_data(self._rows)
            self._rows = []

    def _finish(self):
        if self._writer is None:
            return
        self._flush()
        close_writer(self._writer, self.directory / f'{self._shards:05d}{SUFFIX}')
        self._writer = None
        self._shards += 1


def _image_and_caption(path, types, blobs):
    """Find (image field, caption field); ConfigError if there is none, or several that cannot be told apart."""
    image = [name for name in types if name.lower() in IMAGE_FIELDS and name in blobs and types.get(name) == 'bytes']
    caption = [name for name in types if name.lower() in CAPTION_FIELDS and types.get(name) == 'string']
    for found, what in ((image, 'picture'), (caption, 'caption')):
        if len(found) > 1:
            raise ConfigError(
                f'{path}: {" and ".join(found)} may each be the {what}: write the set with one of them under this name'
                f' only (pictures are looked for in {", ".join(IMAGE_FIELDS)}, captions in {", ".join(CAPTION_FIELDS)})'
            )
    if not image or not caption:
        have = ', '.join(f'{name}: {kind}' for name, kind in types.items())
        raise ConfigError(
            f'{path} has the fields {have}; needed are an encoded image (bytes, named {" or ".join(IMAGE_FIELDS)}) and '
            f'a caption (string, named {" or ".join(CAPTION_FIELDS)})'
        )
    return image[0], caption[0]


def _meta(text):
    try:
        meta = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}
