"""Training by timm's own, unmodified train.py: its scripts, its arguments checked, the curves of runs, and a small demo."""

from .curves import CurvesOptions as CurvesOptions
from .curves import RunSummary as RunSummary
from .curves import draw_run_curves as draw_run_curves
from .curves import read_summary as read_summary
from .digits_demo import DemoOptions as DemoOptions
from .digits_demo import DemoReport as DemoReport
from .digits_demo import demo as demo
from .keep_class_names import keep_class_names as keep_class_names
from .prepare import ScriptOptions as ScriptOptions
from .prepare import prepare_script as prepare_script
from .timm_scripts import find_script as find_script
from .timm_scripts import run_script as run_script
from .train_arguments import check_arguments as check_arguments
