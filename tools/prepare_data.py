"""Write a data set for tools/train.py (webdataset tars or MindRecord), or MSCOCO's captions and images for FID."""

import argparse
import sys
from pathlib import Path

from diffdis_ms.data.make.coco_fid import prepare_coco_fid
from diffdis_ms.data.make.emoji import prepare_emoji
from diffdis_ms.data.make.prepare import check_out, rewrite
from diffdis_ms.data.sources.cc3m import Cc3mTsv
from diffdis_ms.data.sources.folders import CsvFolder
from diffdis_ms.data.sources.mindrecord import MindRecordSet, MindRecordWriter
from diffdis_ms.data.sources.webdataset import TarWriter, open_tars
from diffdis_ms.errors import ConfigError
from diffdis_ms.runtime.cli import run

READERS = {'csv': CsvFolder, 'webdataset': open_tars, 'cc3m-tsv': Cc3mTsv, 'mindrecord': MindRecordSet}
WRITERS = {'webdataset': TarWriter, 'mindrecord': MindRecordWriter}
SOURCES = {
    'emoji': 'draw the demo set from an emoji font',
    'csv': 'images listed in csv files with the columns dir,text',
    'webdataset': 'webdataset tars: check, resize and rewrite them',
    'cc3m-tsv': 'a tsv file of captions and urls (Conceptual Captions), with the images downloaded from them',
    'mindrecord': 'MindRecord files with an encoded image and a caption: check, resize and rewrite them',
    'coco-fid': (
        'random captions of MSCOCO val2014, one per image, and the images cropped to squares: for FID and CLIP-score'
    ),
}
SRC = {
    'csv': 'csv file or a directory with one',
    'webdataset': 'directory of tars, one tar, or a quoted glob pattern',
    'cc3m-tsv': 'tsv file or a directory with one',
    'mindrecord': 'directory of *.mindrecord, one file, or a quoted glob pattern',
    'coco-fid': 'folder with annotations/captions_val2014.json and val2014/',
}
EXAMPLES = """examples:
  python tools/prepare_data.py emoji --out data/emoji
      draws the demo set (no download): data/emoji/train, and data/emoji/held_out with skin tones that no
      concept was trained with
  python tools/prepare_data.py csv --src photos/ --out data/photos --size 256
      photos/*.csv has the header dir,text; each row is an image path relative to the csv, and its caption
  python tools/prepare_data.py webdataset --src 'cc3m/*.tar' --out data/cc3m --size 256 --workers 8
      reads KEY.jpg with KEY.txt (or "caption" in KEY.json), leaves out what cannot be used, rewrites the rest
  python tools/prepare_data.py cc3m-tsv --src Train_GCC-training.tsv --images training/ --out data/cc3m \\
      --format mindrecord
      images are matched to rows by the url in the .json beside them (img2dataset), or by the row number in their
      names, counted from 0 (000000012.jpg, or 12_2850374957 of DownloadConceptualCaptions)
  python tools/prepare_data.py mindrecord --src records/ --out data/records
      reads MindRecord files, checks each sample and rewrites the good ones
  python tools/prepare_data.py coco-fid --src coco/ --out data/coco30k --count 30000
      then: python tools/sample.py --model DIR --prompts data/coco30k/prompts.json --out pictures
            python tools/evaluate.py generation --real data/coco30k --fake pictures --inception FILE --out fid.json

then, for all but coco-fid:
  python tools/train.py --config FILE data.path=data/photos
"""


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sources = parser.add_subparsers(dest='source', metavar='SOURCE', required=True, help=', '.join(SOURCES))
    for name, text in SOURCES.items():
        source = sources.add_parser(
            name, help=text, description=text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        source.add_argument(
            '--out', required=True, metavar='DIR', help='directory to write; it appears when it is complete'
        )
        if name == 'emoji':
            source.add_argument('--size', type=int, default=128, help='image size in pixels (default: %(default)s)')
            source.add_argument(
                '--seed', type=int, default=0, help='decides which combinations are held out (default: %(default)s)'
            )
        else:
            source.add_argument('--src', required=True, metavar='PATH', help=SRC[name])
            if name == 'cc3m-tsv':
                source.add_argument(
                    '--images',
                    metavar='DIR',
                    help='folder of the images or of folders of images (default: that of the tsv file)',
                )
                source.add_argument(
                    '--first-number',
                    type=int,
                    choices=[0, 1],
                    help=(
                        'number of the first row\'s image, if the image names are plain numbers (default: 0, if all '
                        'images agree with it)'
                    ),
                )
            if name == 'coco-fid':
                source.add_argument(
                    '--count', type=int, default=30_000, help='number of captions (default: %(default)s)'
                )
            else:
                source.add_argument(
                    '--format', choices=WRITERS, default='webdataset', help='format to write (default: %(default)s)'
                )
                source.add_argument(
                    '--min-side',
                    type=int,
                    default=16,
                    help='skip images with a side below N pixels (default: %(default)s)',
                )
            source.add_argument(
                '--size',
                type=int,
                default=256,
                help='image size in pixels: resize the shorter side, crop the centre (default: %(default)s)',
            )
            source.add_argument(
                '--seed',
                type=int,
                default=0,
                help='decides the order of writing, or the choice of captions for coco-fid (default: %(default)s)',
            )
            source.add_argument('--workers', type=int, default=2, help='threads that decode (default: %(default)s)')
        source.add_argument('--overwrite', action='store_true', help='replace DIR even if it is not an earlier result')
    return parser.parse_args()


def main():
    args = parse_args()
    if args.source == 'emoji':
        summary = prepare_emoji(args.out, args.size, args.seed, args.overwrite)
        detail = f' ({summary["num_train"]} train, {summary["num_held_out"]} held out)'
    else:
        out, src = Path(args.out).resolve(), Path(args.src).resolve()
        if out == src or out in src.parents:
            raise ConfigError(f'--out {args.out} would replace the source {args.src}; name another directory')
        check_out(out, args.overwrite)  # before the tars are indexed
        options = {'seed': args.seed, 'num_workers': args.workers, 'overwrite': args.overwrite}
        if args.source == 'coco-fid':
            summary = prepare_coco_fid(args.src, args.out, args.count, args.size, **options)
            return print(
                f'{args.out}: {summary["num_kept"]} captions (prompts.json) and their pictures, {args.size} x '
                f'{args.size}'
            )
        reader = (
            Cc3mTsv(args.src, args.images, args.first_number)
            if args.source == 'cc3m-tsv'
            else READERS[args.source](args.src)
        )
        writer = WRITERS[args.format]
        summary = rewrite(reader, args.out, args.size, args.source, writer=writer, min_side=args.min_side, **options)
        if hasattr(reader, 'captions_of'):
            print(f'warning: {args.src} has several captions per image; the first one is used', file=sys.stderr)
        rows = getattr(reader, 'num_without_image', 0)
        detail = f' ({rows} of {reader.num_rows} rows have no image)' if rows else ''
    print(
        f'{args.out}: kept {summary["num_kept"]}{detail}, skipped {summary["num_skipped"]} (listed in'
        f' {Path(args.out, "skipped.txt")})'
    )


if __name__ == '__main__':
    run(main)
