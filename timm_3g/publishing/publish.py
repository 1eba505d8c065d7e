"""Publish an exported folder, or a weights file that is exported first, to a repository of the Hugging Face Hub."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import timm
from timm.models import split_model_name_tag

from timm_3g.checkpoints import WEIGHTS
from timm_3g.utils.options import takes_fields_of
from timm_3g.utils.temporary import start_of, sweep

from .card import make_card, require_current
from .check_folder import open_checked
from .export import ExportOptions, WeightsOptions, export_file
from .folder import CARD, FILES, ExportFolder
from .front_matter import split_front_matter
from .marks import hand_written, readdress
from .push import Pushed, PushOptions, check_push, push
from .run_files import RUN_FILES


@dataclass(frozen=True)
class PublishOptions(WeightsOptions, PushOptions):
    """Options of `publish`, beside those of `WeightsOptions` and `PushOptions`.

    Attributes:
        source: an exported folder, or a weights file to export first.
        repo: ORG/NAME.TAG. It is created if it does not exist.
        model: <arch> or <arch>.<tag> of a weights file. None for the architecture that it records, or that `repo` names.
        num_classes: of a weights file. None for the rows of its classifier.
        dry_run: check everything and push nothing. No network request is made.

    >>> PublishOptions('best.pth', 'me/resnet50_3g.birds', private=True, tag='v1').create_pr
    False
    """

    source: str | Path
    repo: str
    model: str | None = field(default=None, kw_only=True)
    num_classes: int | None = field(default=None, kw_only=True)
    dry_run: bool = field(default=False, kw_only=True)

    def of_weights(self) -> list[str]:
        """Names of the options of weights that are stated."""
        return [*(name for name in ('model', 'num_classes') if getattr(self, name) is not None), *self.stated()]


@dataclass(frozen=True)
class Published:
    """What `publish` pushed, or would push.

    Attributes:
        repo: ORG/NAME.TAG.
        files: names to sizes in bytes.
        sha256: of model.safetensors.
        not_pushed: names of other files in the folder.
        license: according to the card, 'unknown' if it states none.
        commit: the commit with these files. '' after a dry run.
        url: of the commit or the pull request. '' if the Hub had these files already, and after a dry run.
        revision: tag, branch or pull request to load from. '' for main.

    >>> Published('me/resnet50_3g.birds', {'config.json': 900}, 'f' * 64, (), 'mit', revision='v1').revision
    'v1'
    """

    repo: str
    files: Mapping[str, int]
    sha256: str
    not_pushed: tuple[str, ...]
    license: str
    commit: str = ''
    url: str = ''
    revision: str = ''


@takes_fields_of(PublishOptions)
def publish(options: PublishOptions) -> Published:
    """Check a folder, or export a weights file to a temporary one, and push it in one commit.

    Nothing is committed if the Hub has the same files already. Text that people wrote into the card on the Hub is kept, and a
    commit that somebody makes meanwhile is not overwritten. A failure may leave an empty repository or branch, never a part of
    the files. Credentials are huggingface_hub's own: `hf auth login`, or HF_TOKEN.

    Args:
        options: the fields of `PublishOptions`, by position or by name.

    Returns:
        What was pushed. With `dry_run`, what would be pushed.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: options that contradict each other, a damaged folder, a card of other weights, a public repository although
            `private` is set, hand-written texts or licences that differ, a tag that names another commit.
        OSError: the Hub refuses, or cannot be reached.

    >>> import timm, timm_3g
    >>> from timm_3g import publish
    >>> weights = timm.get_pretrained_cfg('resnet10_mini_3g.cifar10').file
    >>> published = publish(Path(weights).parent, 'me/resnet10_mini_3g.cifar10', dry_run=True)
    >>> published.license, published.commit, published.files['model.safetensors']
    ('apache-2.0', '', 2946932)
    """
    name = check_request(options)
    with _folder_of(options, name) as folder:
        _require_name(folder.name, name)
        folder = replace(folder, card=readdress(folder.card, options.repo))
        pushed = (
            Pushed()
            if options.dry_run
            else push(folder, options.repo, options, str(options.source), relicense=bool(options.license))
        )
        sizes = {WEIGHTS: (folder.path / WEIGHTS).stat().st_size, CARD: len(folder.card.encode())}
        sizes |= {name: len(content) for name, content in folder.files.items()}
        return Published(
            options.repo,
            {name: sizes[name] for name in (*FILES, *RUN_FILES) if name in sizes},
            folder.sha256,
            tuple(file.name for file in sorted(folder.path.iterdir()) if file.name not in sizes),
            split_front_matter(folder.card)[0].get('license', 'unknown'),
            pushed.commit,
            pushed.url,
            options.tag or pushed.revision,
        )


@contextmanager
def _folder_of(options: PublishOptions, name: str) -> Iterator[ExportFolder]:
    """The folder to publish, checked, with the card to publish. A folder of the user's stays as it is."""
    source = Path(options.source)
    if source.is_dir():
        folder, net = open_checked(source)
        if options.card or options.license or 'timm_3g' not in split_front_matter(folder.card)[0]:
            card = make_card(folder, options.card, options.license, net=net.to(device='meta'))
            yield replace(folder, card=card)
        else:
            require_current(folder)
            hand_written(folder.card, str(folder.path / CARD))  # for its marks, before anything leaves
            yield folder
        return
    sweep(Path(tempfile.gettempdir()), 'timm_3g')
    with tempfile.TemporaryDirectory(prefix=start_of('timm_3g')) as scratch:
        arch, tag = split_model_name_tag(name)
        of_export = ExportOptions(
            source, options.model, options.num_classes, Path(scratch, name), tag=tag, **options.weights_options()
        )
        yield export_file(of_export, otherwise=arch if timm.is_model(arch) else '')


def check_request(options: PublishOptions) -> str:
    """NAME.TAG of the repository.

    Raises:
        FileNotFoundError, ValueError: options that cannot be met, before any work is done.
    """
    source = Path(options.source)
    if not source.exists():
        raise FileNotFoundError(f'{source} does not exist.')
    check_push(options.repo, 'ORG/NAME.TAG', options)
    of_files = set(options.of_weights()) - {'card', 'license'}
    if source.is_dir() and of_files:
        raise ValueError(
            f'{source} is exported already; got {", ".join(sorted(of_files))}. For files only: --model, --num-classes, '
            '--model-kwargs, --no-ema, --class-map, --with-run, --img-size, --mean, --std, --interpolation and --crop-pct.'
        )
    return options.repo.partition('/')[2]


def _require_name(key: str, name: str) -> None:
    """Raise ValueError if the repository would be named after another architecture than that of the weights."""
    arch, named = split_model_name_tag(key)[0], split_model_name_tag(name)[0]
    if timm.is_model(named) and named != arch:
        raise ValueError(
            f'These weights are of {arch}, and the repository would be named {name!r}. Choose --repo ORG/{arch}.TAG.'
        )
