"""Are activations long-tailed, and do learned weights follow the exact estimator? The paper's Figure 1 on any model."""

from .figure1 import PARTS as PARTS
from .figure1 import Figure1 as Figure1
from .figure1 import Part as Part
from .figure1 import figure1 as figure1
from .finding import Finding as Finding
from .options import Figure1Options as Figure1Options
