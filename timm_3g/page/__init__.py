"""A page to look at models in a browser: what they answer, where they look, what their activations are like. An extra.

Data flows one way: options -> shelf of models -> a photograph -> a look at it -> pictures -> the page.
"""

from .build import build_page as build_page
from .options import PageOptions as PageOptions
from .serve import launch_options as launch_options
from .serve import page as page
from .space import export_space as export_space
