"""Time, memory and precision of the poolings on this machine, against their textbook forms."""

from timm_3g.utils.machine import Machine as Machine

from .case import Case as Case
from .options import SECTIONS as SECTIONS
from .options import BenchmarkOptions as BenchmarkOptions
from .report import Report as Report
from .report import Row as Row
from .run import benchmark as benchmark
