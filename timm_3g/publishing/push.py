"""Push an exported folder to the Hub in one commit, or in none if the Hub has the same files already."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash

from timm_3g import __version__
from timm_3g.checkpoints import NETWORK_ERRORS, WEIGHTS, explain
from timm_3g.utils.options import OptionError

from .folder import CARD, ExportFolder
from .front_matter import read_text, split_front_matter
from .marks import hand_written, merge

REF = re.compile(r'(?!.*(?:\.\.|\.lock(?:/|$)|\.$))\w[\w.-]*(?:/\w[\w.-]*)*', re.ASCII)  # what Git takes, without its oddities

# The client raises RuntimeError for an upload that failed.
CLIENT_ERRORS: tuple[type[Exception], ...] = (*NETWORK_ERRORS, RuntimeError)


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """How a folder is pushed to the Hub.

    Attributes:
        private: the repository must be private, and is created so.
        revision: branch to push to, created if necessary. None for main.
        create_pr: open a pull request instead of pushing.
        tag: name of the pushed commit, e.g. 'v1'. A tag is never moved.
        message: of the commit.
        replace_text: the folder's hand-written text of the card replaces the Hub's.
    """

    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    tag: str | None = None
    message: str | None = None
    replace_text: bool = False


def check_repo(repo: str, form: str) -> None:
    """Raise ValueError for a name of a repository that the Hub would refuse.

    Args:
        repo: the name.
        form: of it, e.g. 'ORG/NAME.TAG'.

    >>> check_repo('me/a b', 'ORG/NAME')
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: repo must be ORG/NAME; got 'me/a b': ...
    """
    owner, _, name = repo.partition('/')
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise OptionError('repo', f'must be {form}; got {repo!r}: {error}') from error
    if not owner or not name:
        raise OptionError('repo', f'must be {form}; got {repo!r}.')


def check_push(repo: str, form: str, options: PushOptions) -> None:
    """Raise ValueError for a repository or options that the Hub would refuse.

    Args:
        repo, form: see `check_repo`.
        options: how.

    >>> check_push('me/a', 'ORG/NAME', PushOptions(tag='a b'))
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: tag must be letters, digits, _ . - and single slashes between them; got 'a b'.
    """
    check_repo(repo, form)
    for name in ('tag', 'revision'):
        value = getattr(options, name)
        if value is not None and not REF.fullmatch(value):
            raise OptionError(name, f'must be letters, digits, _ . - and single slashes between them; got {value!r:.80}.')
    if options.create_pr and (options.tag or options.revision):
        raise ValueError('--create-pr opens a pull request against main. It goes with neither --tag nor --revision.')


@dataclass(frozen=True)
class Pushed:
    """A commit on the Hub, the url of what was made ('' for nothing), and the branch or pull request ('' for main)."""

    commit: str = ''
    url: str = ''
    revision: str = ''


def push(folder: ExportFolder, repo: str, options: PushOptions, source: str, relicense: bool = False) -> Pushed:
    """Push the files of a checked folder in one commit. Then set the tag.

    Args:
        folder: checked, with the card to publish.
        repo: ORG/NAME.
        options: how.
        source: what error messages call the folder.
        relicense: whether the licence of the folder's card replaces another one of the Hub's.

    Raises:
        ValueError: a public repository although `private` is set, hand-written texts or licences that differ, a tag that names
            another commit or is given as a branch.
        OSError: the Hub refuses, or cannot be reached.
    """

    def files(before: Any) -> list[CommitOperationAdd]:
        return _operations(folder, _with_their_text(folder.card, repo, before, options, source, relicense))

    return push_files(files, repo, options, f'Add {folder.name} by timm_3g {__version__}')


def push_files(
    files: Callable[[Any], list[CommitOperationAdd]],
    repo: str,
    options: PushOptions,
    message: str,
    space_sdk: str | None = None,
) -> Pushed:
    """Push files in one commit, or in none if the Hub has them already. Then set the tag.

    Args:
        files: what to push, given what the Hub says of the repository before.
        repo: ORG/NAME.
        options: how.
        message: of the commit where `options` has none.
        space_sdk: 'gradio' for a Space. None for a model.

    Raises:
        ValueError, OSError: see `push`.
    """
    api: Any = HfApi(library_name='timm_3g', library_version=__version__)
    kind = {'repo_type': 'space' if space_sdk else 'model'}
    try:
        api.create_repo(repo, private=options.private, exist_ok=True, space_sdk=space_sdk, **kind)
        if options.private and not api.repo_info(repo, **kind).private:
            raise ValueError(f'{repo} exists and is public. Nothing was pushed. Make it private there, or omit --private.')
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo, **kind).tags}
        if options.revision in tags:
            raise OptionError('revision', f'must be a branch; {options.revision!r} is a tag of {repo}.')
        if options.revision:
            api.create_branch(repo, branch=options.revision, exist_ok=True, **kind)
        before = api.repo_info(repo, revision=options.revision, **kind)
        _require_tag(tags, options.tag, before.sha)
        wanted = files(before)
        # The client would leave out what has not changed, but says so only when it has pushed the rest: too late for the tag.
        if not differs(api, repo, before.sha, wanted, **kind):
            pushed = Pushed(before.sha, '', options.revision or '')
        else:
            _require_tag(tags, options.tag, 'what would be pushed')
            made = api.create_commit(
                repo,
                wanted,
                commit_message=options.message or message,
                revision=options.revision,
                create_pr=options.create_pr,
                parent_commit=before.sha,
                **kind,
            )
            if differs(api, repo, made.oid, wanted, **kind):
                raise OSError(f'the Hub has other files at {made.oid} than were sent')
            pushed = Pushed(made.oid, made.pr_url or made.commit_url, made.pr_revision or options.revision or '')
    except CLIENT_ERRORS as error:
        raise OSError(f'{repo} was not published: {explain(error)}.{_again(error)}') from error
    if options.tag and options.tag not in tags:
        try:
            api.create_tag(repo, tag=options.tag, revision=pushed.commit, **kind)
        except CLIENT_ERRORS as error:
            raise OSError(
                f'{repo} has the files, at {pushed.commit}, but the tag {options.tag!r} was not set: {explain(error)}.'
                f'{_again(error)}'
            ) from error
    return pushed


def _again(error: BaseException) -> str:
    """What to do after an error of the Hub: another request of the same kind may succeed, or cannot."""
    status = getattr(getattr(error, 'response', None), 'status_code', None) or 0
    return '' if status in (400, 401, 403, 404) else ' Run the command again. What has arrived is not sent twice.'


def _operations(folder: ExportFolder, card: str) -> list[CommitOperationAdd]:
    """The files as they are sent: the bytes that were checked.

    Raises:
        ValueError: the weights have changed since they were checked.
    """
    weights = CommitOperationAdd(WEIGHTS, folder.path / WEIGHTS)  # the Hub compares its sha256 with what arrives
    if weights.upload_info.sha256.hex() != folder.sha256:
        raise ValueError(
            f'{folder.path / WEIGHTS} was changed while it was checked. Nothing was pushed. Run the command again.'
        )
    files = {**folder.files, CARD: card.encode()}
    return [weights, *(CommitOperationAdd(name, content) for name, content in files.items())]


def differs(api: Any, repo: str, commit: str, files: Sequence[CommitOperationAdd], repo_type: str = 'model') -> bool:
    """Whether the files at a commit differ from these: by sha256 if Git LFS keeps them, else by Git's hash."""
    paths = [file.path_in_repo for file in files]
    there = {file.path: file for file in api.get_paths_info(repo, paths, revision=commit, repo_type=repo_type)}
    return any(_differs(file, there.get(file.path_in_repo)) for file in files)


def _differs(file: CommitOperationAdd, found: Any) -> bool:
    if found is None:
        return True
    if found.lfs:
        return found.lfs.sha256 != file.upload_info.sha256.hex()
    with file.as_file() as stream:
        return found.blob_id != git_hash(stream.read())


def _with_their_text(card: str, repo: str, before: Any, options: PushOptions, source: str, relicense: bool) -> str:
    """The card with what people wrote into the one on the Hub, as of the commit `before`."""
    if CARD not in [file.rfilename for file in before.siblings]:
        return card
    theirs = read_text(Path(hf_hub_download(repo, CARD, revision=before.sha)))
    try:
        licences = [split_front_matter(text)[0].get('license') or 'unknown' for text in (theirs, card)]
    except ValueError as error:
        raise ValueError(f'The card of {repo}: {error} Nothing was pushed. Repair it on the Hub.') from error
    if licences[0] != 'unknown' and licences[1] == 'unknown':
        raise ValueError(
            f'The card of {repo} says license: {licences[0]}, and the card of {source} states none. Nothing was pushed. '
            f'State it: --license {licences[0]}.'
        )
    if 'unknown' not in licences and licences[0] != licences[1] and not relicense:
        raise ValueError(
            f'The card of {repo} says license: {licences[0]}, and the card of {source} says {licences[1]}. Nothing was pushed. '
            f'Choose one: --license {licences[1]}, or correct the card on the Hub.'
        )
    here = hand_written(card, f'the card of {source}')
    if options.replace_text:
        return merge(theirs, card, here)
    on_hub = hand_written(theirs, f'the card of {repo}', 'Repair it on the Hub, or discard its text: --replace-text.')
    if here not in on_hub and on_hub:  # a text that only grew on the Hub is kept; one that is shorter there may have been cut
        raise ValueError(
            f'Both {source} and the card of {repo} have text outside the marks, and it differs. Nothing was pushed. '
            f'Copy the text from the Hub (`hf download {repo} README.md` fetches it), or discard it: --replace-text.'
        )
    return merge(theirs, card, on_hub or here)


def _require_tag(tags: Mapping[str, str], tag: str | None, commit: str) -> None:
    """Raise ValueError if the tag names another commit. A tag is never moved."""
    if tag and tags.get(tag, commit) != commit:
        raise ValueError(
            f'Tag {tag!r} names {tags[tag]} and is not moved to {commit}. Nothing was pushed. Choose another --tag.'
        )
