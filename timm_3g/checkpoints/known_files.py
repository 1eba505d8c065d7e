"""Authors' files whose function neither names nor shapes of their tensors tell: what is known of them, by SHA-256 and by tag.

fast-MPN-COV took the lower triangle until December 2018 and takes the upper one since. The files on its author's server are of
the older code; a user of the newer one reported 0.166 % top-1 with the file of 50 layers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.hub import HASH_REGEX


@dataclass(frozen=True)
class KnownFile:
    """The key of the weights, the first digits of their file's sha256, and what their function has other than the default."""

    key: str
    digits: str
    options: dict[str, Any]


KNOWN_FILES = (
    KnownFile('resnet50_isqrt.mpncov_2018_in1k', '15991845', {'triangle': 'lower'}),
    KnownFile('resnet101_isqrt.mpncov_2018_in1k', 'ade9737a', {'triangle': 'lower'}),
)


def known_file(file: str | Path) -> KnownFile | None:
    """What is known of a file by the digits in its name, which `check_sha256` compares with its content.

    >>> known_file('mpncovresnet50-15991845.pth').options
    {'triangle': 'lower'}
    """
    named = HASH_REGEX.search(Path(file).name)
    return next((known for known in KNOWN_FILES if named and named[1].startswith(known.digits)), None)


def options_of_tag(key: str) -> dict[str, Any]:
    """What the name `<arch>.<tag>` itself settles; {} for nearly all."""
    return next((dict(known.options) for known in KNOWN_FILES if known.key == key), {})
