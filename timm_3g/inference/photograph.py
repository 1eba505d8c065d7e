"""One image file as a person sees it: upright, and in eight bits."""

from pathlib import Path

import numpy as np
from PIL import Image

# What Pillow decodes by itself. PostScript is left out: for it, Pillow starts Ghostscript, and a file's name proves nothing.
FORMATS = (
    'AVIF', 'BMP', 'DDS', 'DIB', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'MPO', 'PCX', 'PNG', 'PPM', 'PSD', 'QOI', 'SGI', 'TGA',
    'TIFF', 'WEBP', 'XBM', 'XPM',
)  # fmt: skip

# The EXIF tag, and what undoes each of its values. ImageOps.exif_transpose also writes the block anew, which fails where the
# block is broken, and the image would be lost with it.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # of TIFF
BITS_PER_SAMPLE = 258


def read_photograph(file: Path, mode: str) -> Image.Image:
    """The image in `mode` ('RGB' or 'L'), turned as its EXIF orientation says, 16-bit and float grey scaled to eight bits.

    Transparency is dropped, as timm drops it: a transparent pixel has the colour that the file stores for it.

    Raises:
        Exception: whatever Pillow's decoders raise over a damaged file; UnidentifiedImageError for a format not in FORMATS.
    """
    Image.init()
    if file.exists() and not file.is_file():  # a pipe gives nothing until somebody writes into it
        raise ValueError('it is no regular file.')
    with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        image.load()  # TIFF is turned by Pillow here; a PNG may have its EXIF block behind its pixels
        turned = _upright(image)
        if turned.mode[0] in 'IF':  # I, I;16, I;16B, F
            turned = _eight_bits(turned, image)
        if 'transparency' in turned.info and turned.mode == 'P':
            turned = turned.convert('RGBA')
        return turned.convert(mode)


def forget_postscript() -> None:
    """For the rest of the process, Pillow opens no PostScript, whoever asks: timm's readers take what it opens."""
    Image.init()
    if 'EPS' in Image.ID:  # what Pillow tries where it is told no formats
        Image.ID.remove('EPS')


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # a broken block says nothing about the pixels
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _eight_bits(image: Image.Image, source: Image.Image) -> Image.Image:
    """Grey in 'L'. Files of 16 bits have a range of their own. 32-bit and float pixels have none: what lies in [0, 1] (float),
    [0, 255] or [0, 65535] (integer) is taken for that, anything else is stretched from its least to its greatest value."""
    pixels = np.asarray(image).astype(np.float64)
    if not np.isfinite(pixels).all():
        raise ValueError('it has pixels that are NaN or infinite.')
    tags = getattr(source, 'tag_v2', {})
    low, high = 0.0, float(pixels.max())
    if image.mode.startswith('I;16'):
        high = 2.0 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    elif image.mode == 'I' and source.format != 'TIFF':  # PNG and PPM have no more than 16 bits
        high = 65535.0
    elif pixels.min() < 0 or high > (255 if image.mode == 'F' else 65535):
        low = float(pixels.min())
    elif image.mode == 'F' and high <= 1:
        high = 1.0
    else:
        high = 255.0 if high <= 255 else 65535.0
    scaled = np.clip((pixels - low) / (high - low or 1.0), 0, 1) * 255
    scaled = 255 - scaled if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else scaled
    return Image.fromarray(scaled.round().astype(np.uint8))
