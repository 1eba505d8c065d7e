"""The page as a Space of the Hugging Face Hub: a folder of three files."""

from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from timm_3g.publishing.folder import CARD
from timm_3g.publishing.publish_space import APP, REQUIREMENTS
from timm_3g.utils.files import write_text
from timm_3g.utils.home import HOME
from timm_3g.utils.options import OptionError

from .options import SHIPPED

MARK = 'timm-3g page --export'  # in each of the files

_APP = '''"""A page of timm_3g: {model}. Made by `timm-3g page --export`."""

from timm_3g.page import PageOptions, build_page, launch_options

options = PageOptions(models=[{model!r}])
demo = build_page(options)

if __name__ == '__main__':
    # The Hub says by GRADIO_SERVER_NAME where to listen. Elsewhere it is 127.0.0.1.
    demo.launch(**{{**launch_options(options), 'server_name': None}})
'''

_BODY = """# timm_3g: {title}

What [{title}]({link}) answers to an image, where its re-weighting looks, and what its activations are like.
Made by `timm-3g page --export` of [timm_3g]({home}).
"""


def export_space(folder: str | Path, weights: str = '') -> Path:
    """Write a Space: README.md with front matter, app.py, requirements.txt. Files of other names stay.

    Args:
        folder: created if missing.
        weights: ORG/NAME.TAG of a model on the Hub. '' for the weights that ship.

    Returns:
        The folder.

    Raises:
        ValueError: weights that are no ORG/NAME, or a file of one of these names that no export wrote.
        OSError: the folder cannot be written.

    >>> import tempfile
    >>> folder = export_space(tempfile.mkdtemp(), 'me/resnet50_3g.birds')
    >>> sorted(file.name for file in folder.iterdir())
    ['README.md', 'app.py', 'requirements.txt']
    >>> "models=['hf-hub:me/resnet50_3g.birds']" in (folder / 'app.py').read_text()
    True
    """
    folder = Path(folder)
    if weights:
        try:
            validate_repo_id(weights)
        except HFValidationError as error:
            raise OptionError('weights', f'must be ORG/NAME.TAG; got {weights!r}: {error}') from error
        if '/' not in weights:
            raise OptionError('weights', f'must be ORG/NAME.TAG, e.g. ORG/resnet50_3g.birds; got {weights!r}.')
    for name in (APP, REQUIREMENTS, CARD):
        if (folder / name).exists() and MARK not in (folder / name).read_text(encoding='utf-8', errors='replace'):
            raise ValueError(f'{folder / name} exists and is not of an earlier export. Choose another folder.')
    title = weights.rpartition('/')[2] or SHIPPED
    link = f'https://huggingface.co/{weights}' if weights else HOME
    front: dict[str, Any] = {
        'title': f'timm_3g {title}',
        'emoji': '🔎',
        'colorFrom': 'blue',
        'colorTo': 'green',
        'sdk': 'gradio',
        'sdk_version': metadata.version('gradio'),
        'python_version': '3.12',
        'app_file': APP,
        'pinned': False,
        'license': 'apache-2.0',
        'short_description': 'Second-order pooling for timm, in pictures',
        'tags': ['timm', 'timm_3g'],
        **({'models': [weights], 'preload_from_hub': [weights]} if weights else {}),
    }
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    write_text(folder / APP, _APP.format(model=f'hf-hub:{weights}' if weights else SHIPPED))
    write_text(folder / REQUIREMENTS, f'# by {MARK}\ntimm_3g[page] @ git+{HOME}\n')
    write_text(folder / CARD, f'---\n{head}---\n\n{_BODY.format(title=title, link=link, home=HOME)}')
    return folder
