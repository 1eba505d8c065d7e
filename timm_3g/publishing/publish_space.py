"""Publish a Space, as `timm-3g page --export` writes it, to the Hugging Face Hub."""

from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd

from timm_3g import __version__
from timm_3g.utils.files import require_file
from timm_3g.utils.options import takes_fields_of

from .folder import CARD, require_own_files
from .front_matter import read_text, split_front_matter
from .push import Pushed, PushOptions, check_push, push_files

APP, REQUIREMENTS = 'app.py', 'requirements.txt'
FILES = (APP, REQUIREMENTS, CARD)


@dataclass(frozen=True)
class PublishSpaceOptions(PushOptions):
    """Options of `publish_space`, beside those of `PushOptions`.

    Attributes:
        source: a folder with FILES. Other files in it are not pushed.
        repo: ORG/NAME. It is created if it does not exist.
        dry_run: check everything and push nothing. No network request is made.

    >>> PublishSpaceOptions('space', 'me/timm_3g', private=True).dry_run
    False
    """

    source: str | Path
    repo: str
    dry_run: bool = field(default=False, kw_only=True)


@takes_fields_of(PublishSpaceOptions)
def publish_space(options: PublishSpaceOptions) -> Pushed:
    """Check the folder of a Space and push it in one commit, or in none if the Hub has these files already.

    Args:
        options: the fields of `PublishSpaceOptions`, by position or by name.

    Returns:
        What was pushed: empty after a dry run.

    Raises:
        FileNotFoundError: no such folder, or a file is missing.
        ValueError: a file that is a link out of the folder, a README without `sdk: gradio`, a repository that is no ORG/NAME,
            or see `push`.
        OSError: the Hub refuses, or cannot be reached.

    >>> publish_space('absent', 'me/timm_3g')
    Traceback (most recent call last):
    FileNotFoundError: absent/app.py does not exist.
    """
    folder = Path(options.source)
    for name in FILES:
        require_file(folder / name)
    require_own_files(folder, FILES)
    check_push(options.repo, 'ORG/NAME', options)
    front = split_front_matter(read_text(folder / CARD))[0]
    if front.get('sdk') != 'gradio':
        raise ValueError(
            f'{folder / "README.md"} must say sdk: gradio; got {front.get("sdk")!r}. `timm-3g page --export` does.'
        )
    if options.dry_run:
        return Pushed()
    files = [CommitOperationAdd(name, (folder / name).read_bytes()) for name in FILES]
    return push_files(lambda _: files, options.repo, options, f'Add a page by timm_3g {__version__}', space_sdk='gradio')
