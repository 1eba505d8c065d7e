"""Comparisons of many runs of train.py: one YAML file names them, one command runs what is missing, one CSV has the results."""

from .config import Study as Study
from .config import read_study as read_study
from .report import Report as Report
from .report import ReportOptions as ReportOptions
from .report import report_study as report_study
from .run import Run as Run
from .run_study import StudyOptions as StudyOptions
from .run_study import StudyProgress as StudyProgress
from .run_study import study as study
