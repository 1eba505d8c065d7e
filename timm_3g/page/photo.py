"""A file from a stranger as a photograph. What it says of its size is checked before it is decoded."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from timm_3g.inference.photograph import FORMATS, read_photograph
from timm_3g.utils.terminal import one_line

# Of the longer side to the shorter at most. The shorter one is brought to the model's size, and the longer grows with it.
ASPECT = 20
READABLE = tuple(name for name in FORMATS if name != 'ICO')  # Pillow decodes an icon to learn its size


def open_photo(file: str | Path | None, mode: str, megapixels: int) -> Image.Image:
    """Read an image upright and in eight bits, see `read_photograph`.

    Args:
        file: None where a visitor gave none.
        mode: 'RGB' or 'L'.
        megapixels: at most. A larger image is not decoded, nor is one that is ASPECT times as long as it is high.

    Raises:
        ValueError: no file, not an image, too large, too long, or damaged, in words for visitors.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), 'note.txt')
    >>> _ = file.write_text('Hello.')
    >>> open_photo(file, 'RGB', megapixels=50)
    Traceback (most recent call last):
    ValueError: This file is not an image that can be read here: JPEG, PNG, WebP, GIF, TIFF and others can.
    """
    if file is None:
        raise ValueError('Choose an image first.')
    Image.init()
    try:
        with Image.open(file, formats=[name for name in READABLE if name in Image.OPEN]) as image:
            width, height = image.size
        reason = _too_large(width, height, megapixels)
        if not reason:
            return read_photograph(Path(file), mode)
    except (UnidentifiedImageError, IsADirectoryError):
        reason = 'This file is not an image that can be read here: JPEG, PNG, WebP, GIF, TIFF and others can.'
    except FileNotFoundError:
        reason = 'This image is no longer here. Choose it again.'
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f'This image is too large: at most {megapixels} megapixels can be read here.'
    except OSError as error:  # its text may name folders of this machine
        reason = f'This image is damaged: {one_line(error.strerror or str(error)):.200}.'
    except Exception as error:  # the many exceptions of Pillow's decoders over a damaged file
        reason = f'This image is damaged: {one_line(str(error)):.200}.'
    raise ValueError(reason)


def _too_large(width: int, height: int, megapixels: int) -> str:
    """Why an image of this size is not decoded, or ''."""
    size = f'This image has {width} x {height} pixels'
    if width * height > megapixels * 1_000_000:
        return f'{size}, {width * height / 1e6:.0f} megapixels. At most {megapixels} can be read here.'
    if max(width, height) > ASPECT * min(width, height):
        return f'{size}: too long. One side can be at most {ASPECT} times the other here.'
    return ''
