"""`timm-3g publish`: an exported folder, or a weight file that is exported first, to a repository of the Hugging Face Hub."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from timm_3g import __version__
from timm_3g.checkpoints import NETWORK_ERRORS, SHA256, WEIGHTS, explain
from timm_3g.publishing.card import hand_written, make_card, merge, read_text, readdress, require_current, split_front_matter
from timm_3g.publishing.folder import CARD, FILES, key_of, read_json, require_own_files
from timm_3g.publishing.upload_files import checked_files, differs
from timm_3g.utils.temporary import start_of, sweep

from .export import add_export_options, export, export_options, model_name

# RuntimeError is the client's word around an upload that failed.
CLIENT_ERRORS: tuple[type[Exception], ...] = (*NETWORK_ERRORS, RuntimeError)

EXAMPLE = 'timm-3g publish output/train/RUN/model_best.pth.tar --repo ORG/resnet50_3g.birds --license apache-2.0 --dry-run'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb. Credentials are huggingface_hub's: `hf auth login`, or HF_TOKEN."""
    parser.add_argument('source', type=Path, metavar='DIR|FILE', help='a folder of `timm-3g export`, or a file to export first')
    parser.add_argument(
        '--repo', required=True, metavar='ORG/NAME.TAG', help='made if it is not there (credentials: `hf auth login`, HF_TOKEN)'
    )
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
    sweep(Path(tempfile.gettempdir()), 'timm_3g')
    with tempfile.TemporaryDirectory(prefix=start_of('timm_3g')) as scratch:
        folder = args.source
        if args.source.is_file():
            arch, _, tag = name.partition('.')
            model = model_name(args.source, args.model, otherwise=arch if timm.is_model(arch) else '')
            folder = export(args.source, model, output=Path(scratch, name), tag=tag, **export_options(args))
        checked = checked_files(folder)
        _require_name(key_of(folder), name)
        card = readdress(_card_of(folder, args), args.repo)
        print(describe(folder, card, args) if args.dry_run else push(folder, checked, card, args))


def _card_of(folder: Path, args: argparse.Namespace) -> str:
    """The folder's card; made where it has none of ours, or where --card or --license ask for it.

    Raises:
        ValueError: it is of other weights, or states what it cannot; or a file is a link to something outside.
    """
    require_own_files(folder)
    readme = folder / CARD
    text = read_text(readme) if readme.is_file() else ''
    if args.source.is_dir() and (args.card or args.license or 'timm_3g' not in split_front_matter(text)[0]):
        return make_card(folder, args.card, args.license)
    require_current(folder, text)
    hand_written(text, str(readme))  # for its marks, before anything leaves
    return text


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
    lines = [f'Nothing was pushed. {args.repo}, {target}{", private" if args.private else ""}, would get of {args.source}:']
    sizes = {name: len(card.encode()) if name == CARD else (folder / name).stat().st_size for name in FILES}
    lines += [f'  {name:20} {size:12,} bytes' for name, size in sizes.items()]
    lines += [f'sha256 of {WEIGHTS}: {read_json(folder)[SHA256]}', *_cautions(folder, card)]
    return '\n'.join(lines)


def _cautions(folder: Path, card: str) -> list[str]:
    fields, _ = split_front_matter(card)
    lines = [f'Not pushed: {file.name}' for file in sorted(folder.iterdir()) if file.name not in FILES]
    if fields.get('license', 'unknown') == 'unknown':
        lines.append('The card states no licence. Whether you may publish these weights is yours to know.')
    return lines


def push(folder: Path, checked: Sequence[CommitOperationAdd], card: str, args: argparse.Namespace) -> str:
    """One commit with the four files of a checked folder, or none where nothing has changed. Then the tag.

    Text that people have written into the card on the Hub is kept, and a commit of theirs meanwhile is not written over. A
    failure on the way may leave an empty repository or branch, never a part of the files.

    Returns:
        What was done, in words.

    Raises:
        ValueError: a public repository where --private is asked for; hand-written texts or licences that differ; a tag that is
            elsewhere, or that --revision names.
        OSError: the Hub refuses or cannot be reached.
    """
    api: Any = HfApi(library_name='timm_3g', library_version=__version__)
    try:
        api.create_repo(args.repo, private=args.private, exist_ok=True)
        if args.private and not api.model_info(args.repo).private:
            raise ValueError(
                f'{args.repo} exists and is public; nothing was pushed. Make it private there, or leave out --private.'
            )
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(args.repo).tags}
        if args.revision in tags:
            raise ValueError(f'--revision must be a branch; {args.revision!r} is a tag of {args.repo}.')
        if args.revision:
            api.create_branch(args.repo, branch=args.revision, exist_ok=True)
        before = api.model_info(args.repo, revision=args.revision)
        _require_tag(tags, args.tag, before.sha)
        files = [*checked, CommitOperationAdd(CARD, _with_their_text(card, before, args).encode())]
        commit, revision = before.sha, args.revision
        done = f'{args.repo}: nothing had changed.'
        if differs(api, args.repo, before.sha, files):
            _require_tag(tags, args.tag, 'what would be pushed')
            made = api.create_commit(
                args.repo,
                files,
                commit_message=args.message or f'Add {key_of(folder)} by timm_3g {__version__}',
                revision=args.revision,
                create_pr=args.create_pr,
                parent_commit=before.sha,
            )
            commit, revision = made.oid, made.pr_revision or args.revision
            done = f'{args.repo}: {made.pr_url or made.commit_url}'
            if differs(api, args.repo, commit, files):
                raise OSError(f'the Hub has other files at {commit} than were sent')
        if args.tag and args.tag not in tags:
            api.create_tag(args.repo, tag=args.tag, revision=commit)
    except CLIENT_ERRORS as error:
        status = getattr(getattr(error, 'response', None), 'status_code', None) or 0
        again = '' if status in (400, 401, 403, 404) else ' Run the command again: what has arrived is not sent twice.'
        raise OSError(f'{args.repo} was not published: {explain(error)}.{again}') from error
    at = args.tag or revision
    load = f"import timm, timm_3g; timm.create_model('hf-hub:{args.repo}{f'@{at}' if at else ''}', pretrained=True)"
    return '\n'.join([done, *_cautions(folder, card), load])


def _with_their_text(card: str, before: Any, args: argparse.Namespace) -> str:
    """The card with what people have written into the one on the Hub, as of the commit `before`."""
    if CARD not in [file.rfilename for file in before.siblings]:
        return card
    theirs = read_text(Path(hf_hub_download(args.repo, CARD, revision=before.sha)))
    licences = [split_front_matter(text)[0].get('license', 'unknown') for text in (theirs, card)]
    if licences[0] != 'unknown' and licences[1] == 'unknown':
        raise ValueError(
            f'The card of {args.repo} says license: {licences[0]}, the one of {args.source} states none; nothing was pushed. '
            f'Say which: --license {licences[0]}.'
        )
    here = hand_written(card, f'the card of {args.source}')
    if args.replace_text:
        return merge(theirs, card, here)
    on_hub = hand_written(theirs, f'the card of {args.repo}')
    if here not in on_hub and on_hub not in here:
        raise ValueError(
            f'Both {args.source} and the card of {args.repo} have text outside the marks, and it differs; nothing was pushed. '
            f"Take the Hub's over (`hf download {args.repo} README.md` brings it), or give it up: --replace-text."
        )
    return merge(theirs, card, max(here, on_hub, key=len))


def _require_tag(tags: dict[str, str], tag: str | None, commit: str) -> None:
    """Raise ValueError if the tag names another commit: it is never moved."""
    if tag and tags.get(tag, commit) != commit:
        raise ValueError(
            f'Tag {tag!r} stays at {tags[tag]}, and is not moved to {commit}; nothing was pushed. Choose another --tag.'
        )
