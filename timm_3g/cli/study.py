"""`timm-3g study CONFIG`: the runs of a study. `timm-3g study report CSV`: its tables and pictures."""

import argparse
from pathlib import Path

from timm_3g.studies import ReportOptions, StudyOptions, report_study, study
from timm_3g.studies.run_study import duration

from ._arguments import command_line_names, options_from
from .run import add_scripts_option

EXAMPLE = """timm-3g study train_configs/studies/cifar10_poolings.yaml --data-dir cifar10 --dry-run
  timm-3g study train_configs/studies/cifar10_poolings.yaml --data-dir cifar10 --results docs/studies/cifar10_poolings.csv
  timm-3g study report docs/studies/cifar10_poolings.csv --page docs/studies/cifar10_poolings.md"""


OF_RUNS = ('data_dir', 'output', 'results', 'dry_run', 'timm_scripts')
OF_REPORT = ('page', 'pictures')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.usage = '%(prog)s CONFIG --data-dir DIR [options]\n       %(prog)s report CSV [--page FILE] [--pictures DIR]'
    parser.add_argument('words', nargs='+', metavar='CONFIG', help="the study's YAML file; or: report CSV")
    runs = parser.add_argument_group('runs')
    runs.add_argument('--data-dir', type=Path, metavar='DIR', help='an ImageFolder with the splits that the study names')
    runs.add_argument('--output', type=Path, metavar='DIR', help='of the runs (default: output/study/NAME)')
    runs.add_argument('--results', type=Path, metavar='CSV', help='(default: results.csv in --output)')
    runs.add_argument(
        '--dry-run', action='store_true', help='list the runs and an estimate. Options of train.py are not checked'
    )
    add_scripts_option(parser)
    report = parser.add_argument_group('report')
    report.add_argument(
        '--page', type=Path, metavar='FILE', help='a Markdown page whose marked tables are written anew, or that is made'
    )
    report.add_argument('--pictures', type=Path, metavar='DIR', help='(default: the folder of the CSV)')


def run(args: argparse.Namespace) -> None:
    """Run or report."""
    is_report = args.words[0] == 'report'
    for name in OF_RUNS if is_report else OF_REPORT:
        if getattr(args, name):
            other = 'a study' if is_report else 'report'
            raise ValueError(f'--{name.replace("_", "-")} belongs to {other}. Leave it out.')
    if is_report:
        if len(args.words) != 2:
            raise ValueError(f'report takes one CSV; got {len(args.words) - 1}.')
        report = report_study(options_from(args, ReportOptions, results=Path(args.words[1])))
        print(report.text)
        print(f'Pictures: {", ".join(map(str, report.pictures))}')
        return
    if len(args.words) != 1:
        raise ValueError(f'study takes one YAML file; got {len(args.words)}.')
    if not args.data_dir:
        raise ValueError('Name the data: --data-dir DIR.')
    with command_line_names():
        progress = study(options_from(args, StudyOptions, config=Path(args.words[0])))
    if args.dry_run:
        for one in progress.missing:
            print(f'{one.name}: {one.epochs} epochs')
    rest = 'unknown: no run is done' if progress.seconds is None else f'{duration(progress.seconds)} of one process'
    print(f'{len(progress.rows)} runs are done, {len(progress.missing)} are missing. Time for those: {rest}.')
    print(f'Results: {progress.results}')
