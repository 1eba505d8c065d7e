"""`timm-3g publish`: an exported folder, or a weight file that is exported first, to a repository of the Hugging Face Hub."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from timm_3g import __version__
from timm_3g.models import NETWORK_ERRORS, SHA256, WEIGHTS, explain, read_training

from ._card import hand_written, make_card, merge, readdress, split_front_matter
from ._folder import CARD, FILES, check_folder, key_of, read_json
from .export import add_export_options, export

# RuntimeError is the client's word around an upload that failed.
CLIENT_ERRORS: tuple[type[Exception], ...] = (*NETWORK_ERRORS, RuntimeError)

EXAMPLE = 'timm-3g publish output/train/RUN/model_best.pth.tar --repo ORG/resnet50_3g.birds --license apache-2.0 --dry-run'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb. Credentials are huggingface_hub's: `hf auth login`, or HF_TOKEN."""
    parser.add_argument('source', type=Path, metavar='DIR|FILE', help='a folder of `timm-3g export`, or a file to export first')
    parser.add_argument('--repo', required=True, metavar='ORG/NAME.TAG', help='made if it is not there')
    parser.add_argument('--private', action='store_true', help='the repository must be, or is made, private')
    parser.add_argument('--revision', '--branch', metavar='BRANCH', help='push there (made if need be; default: main)')
    parser.add_argument('--create-pr', action='store_true', help='open a pull request instead of pushing')
    parser.add_argument('--tag', metavar='TAG', help='name the pushed commit, e.g. v1')
    parser.add_argument('--message', metavar='TEXT', help='of the commit')
    parser.add_argument(
        '--replace-text', action='store_true', help="the folder's hand-written text of the card wins over the Hub's"
    )
    parser.add_argument('--dry-run', action='store_true', help='check everything, say what would be pushed; no network')
    add_export_options(parser)


def run(args: argparse.Namespace) -> None:
    """Export if a file was given, then push, and say what came of it. A folder that was given stays as it is.

    Raises:
        ValueError, OSError: see `check_request`, `export` and `push`.
    """
    name = check_request(args)
    with tempfile.TemporaryDirectory(prefix='timm_3g.') as scratch:
        folder = args.source
        if not folder.is_dir():
            folder = export(
                args.source,
                _model_of(args.source, args.model, name),
                args.num_classes,
                Path(scratch, name),
                args.model_kwargs,
                use_ema=not args.no_ema,
                class_map=args.class_map,
                card=args.card,
                license=args.license,
            )
        check_folder(folder)
        _require_name(key_of(folder), name)
        anew = args.source.is_dir() and (args.card or args.license or not (folder / CARD).is_file())
        card = make_card(folder, args.card, args.license) if anew else (folder / CARD).read_text(encoding='utf-8')
        card = readdress(card, args.repo)
        print(describe(folder, card, args) if args.dry_run else push(folder, card, args))


def check_request(args: argparse.Namespace) -> str:
    """NAME.TAG of --repo.

    Raises:
        FileNotFoundError, ValueError: options that cannot be met, before any work is done.
    """
    if not args.source.exists():
        raise FileNotFoundError(f'{args.source} does not exist.')
    owner, _, name = args.repo.partition('/')
    try:
        validate_repo_id(args.repo)
    except HFValidationError as error:
        raise ValueError(f'--repo must be ORG/NAME.TAG; got {args.repo!r}: {error}') from error
    if not owner or not name:
        raise ValueError(f'--repo must be ORG/NAME.TAG, e.g. ORG/resnet50_3g.birds; got {args.repo!r}.')
    if args.source.is_dir() and (args.model or args.num_classes or args.model_kwargs or args.no_ema or args.class_map):
        raise ValueError(
            f'{args.source} is exported already; --model, --num-classes, --model-kwargs, --no-ema, --class-map are for files.'
        )
    if args.create_pr and (args.tag or args.revision):
        raise ValueError('--create-pr opens a pull request against main: neither --tag nor --revision goes with it.')
    return name


def _model_of(checkpoint: Path, given: str | None, name: str) -> str:
    """<arch>.<tag>: the architecture that is asked for, or that train.py recorded, or of the repository's name; its tag.

    Raises:
        ValueError: there is none.
    """
    arch, _, tag = name.partition('.')
    known = given or read_training(checkpoint).get('model', '').split('.')[0] or (arch if timm.is_model(arch) else '')
    if not known:
        raise ValueError(f'{checkpoint} does not say which architecture it is of, nor does {name!r}. Name it: --model NAME.')
    return known if '.' in known or not tag else f'{known}.{tag}'


def _require_name(key: str, name: str) -> None:
    """Raise ValueError if the repository would bear the name of another architecture than the weights are of."""
    arch, named = key.split('.')[0], name.split('.')[0]
    if timm.is_model(named) and named != arch:
        raise ValueError(
            f'These weights are of {arch}, and the repository would be named {name!r}. Choose --repo ORG/{arch}.TAG.'
        )


def describe(folder: Path, card: str, args: argparse.Namespace) -> str:
    """What `push` would send, and where to."""
    target = 'a pull request' if args.create_pr else args.revision or 'main'
    lines = [f'Nothing was pushed. {args.repo}, {target}{", private" if args.private else ""}, would get of {folder}:']
    sizes = {name: len(card.encode()) if name == CARD else (folder / name).stat().st_size for name in FILES}
    lines += [f'  {name:20} {size:12,} bytes' for name, size in sizes.items()]
    lines += [f'sha256 of {WEIGHTS}: {read_json(folder)[SHA256]}', *_cautions(folder, card)]
    return '\n'.join(lines)


def _cautions(folder: Path, card: str) -> list[str]:
    fields, _ = split_front_matter(card)
    found = (
        []
        if fields['license'] != 'unknown'
        else ['The card states no licence. Whether you may publish these weights is yours to know.']
    )
    return [*found, *(f'Not pushed: {f.name}' for f in sorted(folder.iterdir()) if f.name not in FILES)]


def push(folder: Path, card: str, args: argparse.Namespace) -> str:
    """One commit with the four files of a checked folder, or none where nothing has changed. Then the tag.

    Text that people have written into the card on the Hub is kept. A failure on the way leaves the repository as it was.

    Returns:
        What was done, in words.

    Raises:
        ValueError: a public repository where --private is asked for; hand-written texts that differ; a tag that is elsewhere.
        OSError: the Hub refuses or cannot be reached.
    """
    api: Any = HfApi(library_name='timm_3g', library_version=__version__)
    try:
        api.create_repo(args.repo, private=args.private, exist_ok=True)
        if args.private and not api.model_info(args.repo).private:
            raise ValueError(
                f'{args.repo} exists and is public; nothing was pushed. Make it private on the Hub, or leave out --private.'
            )
        if args.revision:
            api.create_branch(args.repo, branch=args.revision, exist_ok=True)
        card = _with_their_text(card, args)
        before = api.model_info(args.repo, revision=args.revision).sha
        operations = [CommitOperationAdd(name, str(folder / name)) for name in FILES if name != CARD]
        commit = api.create_commit(
            args.repo,
            [*operations, CommitOperationAdd(CARD, card.encode())],
            commit_message=args.message or f'Add {key_of(folder)} by timm_3g {__version__}',
            revision=args.revision,
            create_pr=args.create_pr,
        )
        _check_pushed(api, folder, args.repo, commit.oid)
        lines = [
            f'{args.repo}: nothing had changed.'
            if commit.oid == before
            else f'{args.repo}: {commit.pr_url or commit.commit_url}'
        ]
        if args.tag:
            _set_tag(api, args.repo, args.tag, commit.oid)
        lines += _cautions(folder, card)
        revision = '' if commit.oid == before or args.create_pr or not args.revision else f'@{args.revision}'
        return '\n'.join([*lines, f"timm.create_model('hf-hub:{args.repo}{revision}', pretrained=True)"])
    except CLIENT_ERRORS as error:
        raise OSError(
            f'{args.repo} was not published: {explain(error)}. Run the command again: what has arrived is not sent twice.'
        ) from error


def _with_their_text(card: str, args: argparse.Namespace) -> str:
    """The card with what people have written into the one on the Hub."""
    try:
        theirs = Path(hf_hub_download(args.repo, CARD, revision=args.revision)).read_text(encoding='utf-8')
    except EntryNotFoundError:
        return card
    on_hub, here = hand_written(theirs), hand_written(card)
    if on_hub and here not in ('', on_hub) and not args.replace_text:
        raise ValueError(
            f'Both {args.source} and the card of {args.repo} have text below the mark, and it differs; nothing was pushed. '
            f"Take the Hub's text over into the folder, or give it up: --replace-text."
        )
    return merge(theirs, card, here or on_hub)


def _check_pushed(api: Any, folder: Path, repo: str, commit: str) -> None:
    """Raise OSError unless the commit holds the weights of the folder."""
    (weights,) = api.get_paths_info(repo, [WEIGHTS], revision=commit)
    if weights.lfs and weights.lfs.sha256 != read_json(folder)[SHA256]:
        raise OSError(f'{repo} has other weights at {commit} than were sent: sha256 {weights.lfs.sha256}. Push again.')


def _set_tag(api: Any, repo: str, tag: str, commit: str) -> None:
    """Name the commit; do nothing where it bears the name already. A tag is never moved."""
    placed = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
    if placed.get(tag, commit) != commit:
        raise ValueError(
            f'Pushed as {commit}, but tag {tag!r} stays at {placed[tag]}: tags are not moved. Choose another --tag.'
        )
    if tag not in placed:
        api.create_tag(repo, tag=tag, revision=commit)
