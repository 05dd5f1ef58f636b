"""MSCOCO and Flickr30k with Karpathy's splits.

The file `dataset_coco.json` or `dataset_flickr30k.json` is expected beside the image folders.
"""

from pathlib import Path

from diffdis_ms.data.samples import Sample
from diffdis_ms.data.sources.folders import read_image
from diffdis_ms.errors import BadSample, ConfigError
from diffdis_ms.text_files import read_json

MAX_BYTES = 1 << 30  # of the JSON file; COCO's has 144 MB
KARPATHY_SETS = {
    'coco': ('dataset_coco.json', ('', 'images')),
    'flickr30k': ('dataset_flickr30k.json', ('flickr30k-images', 'flickr30k_images', 'images', '')),
}


class KarpathySet:
    """The images of a split, each with all its captions (five or more).

    Attributes:
        class_names: None. split: name of the split, for results. missing: keys of the images that do not exist.
    """

    class_names = None

    def __init__(self, name, root, split='test'):
        """Args:
            name: 'coco' (images in the folders named in the file, root/val2014/) or 'flickr30k' (images in
                root/flickr30k-images/).
            root: the folder of the JSON file. split: 'train', 'val', 'test' or 'restval'.

        Raises:
            ConfigError: the file or all images are missing (the message names the expected path), or it is not
                Karpathy's file.
        """
        file_name, folders = KARPATHY_SETS[name]
        self.root, self.split = Path(root), f'Karpathy {split}'
        file = self.root / file_name
        if not file.is_file():
            raise ConfigError(f'{file} does not exist: it should contain Karpathy\'s split of {name}')
        content = read_json(file, limit=MAX_BYTES)
        try:
            images = [image for image in content['images'] if image['split'] == split]
            self._samples = [
                (
                    Path(image.get('filepath', '')) / image['filename'],
                    [str(s['raw']).strip() for s in image['sentences']],
                )
                for image in images
            ]
        except (KeyError, TypeError, AttributeError) as e:
            raise ConfigError(
                f'{file} is not Karpathy\'s file ({type(e).__name__}: {" ".join(str(e).split())[:80]})'
            ) from None
        bad = next(
            (str(path) for path, captions in self._samples if path.is_absolute() or '..' in path.parts or not captions),
            None,
        )
        if bad or not self._samples:
            raise ConfigError(
                f'{file}: ' + (f'{bad} leaves the folder or has no caption' if bad else f'no image in split {split!r}')
            )
        first = [self.root / folder / self._samples[0][0] for folder in folders]
        found = [
            self.root / folder
            for folder in folders
            if any((self.root / folder / path).is_file() for path, _ in self._samples)
        ]
        self._folder = found[0] if found else None
        if self._folder is None:
            raise ConfigError(f'{first[0]} does not exist: the images of {name} belong there')
        self.missing = [str(path) for path, _ in self._samples if not (self._folder / path).is_file()]

    def __len__(self):
        return len(self._samples)

    def captions_of(self, i):
        """All captions of image `i`."""
        return self._samples[i][1]

    def read(self, i):
        """Read sample `i` with its first caption; raises BadSample if its image cannot be used."""
        path, captions = self._samples[i]
        if not (self._folder / path).is_file():
            raise BadSample(str(path), 'no such image file')
        return Sample(str(path), read_image(self._folder / path, str(path)), captions[0])
