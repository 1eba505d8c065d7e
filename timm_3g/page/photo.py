"""A file from a stranger as a photograph. What it says of its size is checked before it is decoded."""

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from timm_3g.inference.photograph import FORMATS, read_photograph
from timm_3g.utils.terminal import one_line


def open_photo(file: str | Path | None, mode: str, megapixels: int) -> Image.Image:
    """Read an image upright and in eight bits, see `read_photograph`.

    Args:
        file: None where a visitor gave none.
        mode: 'RGB' or 'L'.
        megapixels: at most. A larger image is not decoded.

    Raises:
        ValueError: no file, not an image, too large, or damaged, in words for visitors.

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
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # our limit is below Pillow's
            with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
                width, height = image.size
            if width * height <= megapixels * 1_000_000:
                return read_photograph(Path(file), mode)
    except UnidentifiedImageError:
        raise ValueError(
            'This file is not an image that can be read here: JPEG, PNG, WebP, GIF, TIFF and others can.'
        ) from None
    except Image.DecompressionBombError:
        raise ValueError(f'This image is too large: at most {megapixels} megapixels can be read here.') from None
    except Exception as error:  # the many exceptions of Pillow's decoders over a damaged file
        raise ValueError(f'This image is damaged: {one_line(str(error)):.200}.') from None
    raise ValueError(
        f'This image has {width} x {height} pixels, {width * height / 1e6:.0f} megapixels. At most {megapixels} can be read '
        f'here.'
    )
