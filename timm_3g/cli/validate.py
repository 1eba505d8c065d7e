"""`timm-3g validate`: top-1 and top-5 with one crop or ten, in one process or many."""

import argparse
from pathlib import Path

import torch

from timm_3g.inference import ValidateOptions, append_row, read_rows, validate
from timm_3g.utils.files import require_writable
from timm_3g.utils.launched import is_first_process

from ._arguments import command_line_names, options_from
from ._model_options import add_model_options

EXAMPLE = """timm-3g validate --model resnet50_3g --checkpoint model_best.pth.tar --data-dir imagenet --results-file results.csv
  torchrun --nproc_per_node=4 -m timm_3g validate --model resnet50_3g --checkpoint FILE --data-dir places365 --crops 10"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb. Names and meaning are those of timm's validate.py, except --crops and --corruption."""
    add_model_options(parser)
    parser.add_argument('--pretrained', action='store_true', help="the model's own weights (default without --checkpoint)")
    parser.add_argument('--data-dir', metavar='DIR', help='root of the data set')
    parser.add_argument(
        '--dataset', default='', metavar='NAME', help='wds/, hfds/, hfids/, torch/, tfds/... (default: folder or tar)'
    )
    parser.add_argument('--split', default='', metavar='NAME', help='(default: validation, or the whole folder without splits)')
    parser.add_argument('--num-samples', type=int, metavar='N', help='size of the split, for streams that do not know it')
    parser.add_argument('--dataset-download', action='store_true', help='allow torch/ and tfds/ to download')
    parser.add_argument(
        '--dataset-trust-remote-code', action='store_true', help="run code of the data set's repository (hfds/)"
    )
    parser.add_argument('--class-map', default='', metavar='FILE', help='class names in the order of their index')
    parser.add_argument('--input-key', metavar='KEY', help='of the images, in data sets with keys')
    parser.add_argument('--input-img-mode', metavar='MODE', help='image mode, e.g. RGB')
    parser.add_argument('--target-key', metavar='KEY', help='of the labels, in data sets with keys')
    parser.add_argument('-b', '--batch-size', type=int, default=256, metavar='N', help='images per step and process (256)')
    parser.add_argument(
        '--crops',
        type=int,
        choices=[1, 10],
        default=1,
        help='10: corners, centre and mirror images; the mean of the ten logits',
    )
    parser.add_argument(
        '--no-prefetcher', dest='prefetcher', action='store_false', help='normalise in the reading processes, not on the device'
    )
    parser.add_argument('--pin-mem', action='store_true', help='pinned memory for the transfer to a GPU')
    parser.add_argument('--seed', type=int, default=42, metavar='N', help='of streams that shuffle (42)')
    parser.add_argument(
        '--corruption',
        default='',
        metavar='NAME',
        help='corrupt the images: noise-std0.1, blur-std1.0, jpeg-q20, or other values',
    )
    parser.add_argument('--results-file', type=Path, metavar='CSV', help='append the results as a row')


def run(args: argparse.Namespace) -> None:
    """Evaluate. The first process prints the result and appends it to --results-file."""
    if args.pretrained and args.checkpoint:
        raise ValueError('--pretrained and --checkpoint name two sets of weights. Leave one out.')
    options = options_from(args, ValidateOptions)
    if args.results_file:  # a file that cannot be appended to is an error now, not after the evaluation
        require_writable(args.results_file)
        read_rows(args.results_file)
    if torch.cuda.is_available():  # as timm's validate.py
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    with command_line_names():
        result = validate(options)
    if not is_first_process():
        return
    print(
        f' * Acc@1 {result.top1:.3f} ({result.top1_err:.3f}) Acc@5 {result.top5:.3f} ({result.top5_err:.3f})  '
        f'{result.images} images, {result.crops} crop(s), {result.seconds} s'
    )
    if args.results_file:
        append_row(args.results_file, result)
