"""Time, memory and precision of the poolings on this machine, against their textbook forms."""

from .case import Case as Case
from .machine import Machine as Machine
from .options import SECTIONS as SECTIONS
from .options import BenchmarkOptions as BenchmarkOptions
from .report import Report as Report
from .report import Row as Row
from .run import benchmark as benchmark
