"""A share of the training images, as a folder of links: train.py has no option for it."""

import hashlib
import os
import random
import shutil
from pathlib import Path

import timm.data

from timm_3g.compat import search_split
from timm_3g.utils.temporary import sweep, temporary_name


def take_fraction(root: str | Path, split: str, fraction: float, folder: Path) -> Path:
    """A copy of an ImageFolder, made of links, with a share of the images of each class of one split.

    A smaller share is part of a larger one. Every class keeps at least one image.

    Args:
        root: the ImageFolder: SPLIT/CLASS/file.
        split: of which a share is taken.
        fraction: the share, in (0, 1].
        folder: where such copies are.

    Returns:
        The copy, or `root` itself if the share is 1.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for n in range(10):
    ...     (root / 'train' / 'cat').mkdir(parents=True, exist_ok=True)
    ...     (root / 'train' / 'cat' / f'{n}.png').touch()
    >>> copy = take_fraction(root, 'train', 0.3, root / 'shares')
    >>> copy.name[:12], len(list((copy / 'train' / 'cat').iterdir()))
    ('fraction=0.3', 3)
    """
    if fraction == 1.0:
        return Path(root)
    found = Path(search_split(str(root), split))
    source = found.resolve()
    images = sorted(map(Path, timm.data.create_dataset('', root=str(source)).filenames(absolute=True)))  # what timm reads
    others = sorted(f for f in Path(root).iterdir() if f.is_dir() and f != found and f.resolve() != folder.resolve())
    listed = b'\n'.join(map(os.fsencode, (*images, *others)))  # a copy of other images has another name
    copy = folder / f'fraction={fraction!r}-{hashlib.sha256(listed).hexdigest()[:8]}'
    if copy.exists():
        return copy
    sweep(folder, copy.name)
    partial = folder / temporary_name(copy.name)
    files: dict[Path, list[Path]] = {}  # by class
    for file in images:
        files.setdefault(file.parent, []).append(file)
    for label, of_class in files.items():
        random.Random(os.fsencode(label.name)).shuffle(of_class)
        for file in of_class[: max(1, round(fraction * len(of_class)))]:
            link = partial / found.name / file.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(file, link)
    for other in others:
        os.symlink(other.resolve(), partial / other.name)
    try:
        partial.rename(copy)
    except OSError:  # another process was faster
        shutil.rmtree(partial)
    return copy
