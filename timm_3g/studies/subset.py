"""A share of the training images, as a folder of links: train.py has no option for it."""

import hashlib
import os
import random
import shutil
from pathlib import Path

from timm_3g.compat import search_split
from timm_3g.utils.temporary import temporary_name


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
    source = Path(search_split(str(root), split)).resolve()
    copy = folder / f'fraction={fraction:g}-{hashlib.sha256(str(source).encode()).hexdigest()[:8]}'
    if copy.exists():
        return copy
    partial = folder / temporary_name(copy.name)
    for label in sorted(f for f in source.iterdir() if f.is_dir()):
        files = sorted(f for f in label.rglob('*') if f.is_file())
        random.Random(label.name).shuffle(files)
        for file in files[: max(1, round(fraction * len(files)))]:
            link = partial / source.name / label.name / file.relative_to(label)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(file.resolve(), link)
    for other in sorted(f for f in Path(root).iterdir() if f.is_dir() and f.resolve() != source):
        os.symlink(other.resolve(), partial / other.name)
    try:
        partial.rename(copy)
    except OSError:  # another process was faster
        shutil.rmtree(partial)
    return copy
