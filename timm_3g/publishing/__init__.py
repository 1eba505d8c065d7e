"""From a weights file to an exported folder, its model card and the Hub. From the authors' servers to such a folder."""

from .card import write_card as write_card
from .export import ExportOptions as ExportOptions
from .export import export as export
from .folder import ExportFolder as ExportFolder
from .folder import open_folder as open_folder
from .get import Fetched as Fetched
from .get import GetOptions as GetOptions
from .get import get as get
from .get import known_weights as known_weights
from .publish import Published as Published
from .publish import PublishOptions as PublishOptions
from .publish import publish as publish
from .publish_space import PublishSpaceOptions as PublishSpaceOptions
from .publish_space import publish_space as publish_space
