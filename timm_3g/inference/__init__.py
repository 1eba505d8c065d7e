"""Evaluate a model on a data set, and predict the classes of images."""

from .images import Images as Images
from .images import ReadImage as ReadImage
from .images import find_images as find_images
from .options import ModelOptions as ModelOptions
from .photograph import read_photograph as read_photograph
from .predict import ClassProbability as ClassProbability
from .predict import Prediction as Prediction
from .predict import PredictOptions as PredictOptions
from .predict import predict as predict
from .results import Evaluation as Evaluation
from .results import append_row as append_row
from .results import read_rows as read_rows
from .validate import validate as validate
from .validate_options import ValidateOptions as ValidateOptions
