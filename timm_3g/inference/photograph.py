"""One image file as a viewer shows it: upright, and in eight bits."""

from pathlib import Path

import numpy as np
from PIL import Image

# What Pillow decodes by itself. PostScript is not among them: Pillow would start Ghostscript for it, whatever the file's name.
FORMATS = (
    'AVIF', 'BMP', 'DDS', 'DIB', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'MPO', 'PCX', 'PNG', 'PPM', 'PSD', 'QOI', 'SGI', 'TGA',
    'TIFF', 'WEBP', 'XBM', 'XPM',
)  # fmt: skip

# The EXIF tag, and what undoes each of its values. ImageOps.exif_transpose also rewrites the block, which fails for a broken
# block.
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
    """Read an image, rotate it by its EXIF orientation, and scale 16-bit and float grey to eight bits.

    Transparency is dropped, as timm drops it: a transparent pixel has the colour that the file stores for it.

    Args:
        mode: 'RGB' or 'L'.

    Raises:
        Exception: the exceptions of Pillow's decoders over a damaged file, UnidentifiedImageError for a format not in FORMATS.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), 'grey.png')
    >>> Image.fromarray(np.full((2, 3), 65535, dtype=np.uint16)).save(file)
    >>> image = read_photograph(file, 'RGB')
    >>> image.size, image.getpixel((0, 0))
    ((3, 2), (255, 255, 255))
    """
    Image.init()
    if file.exists() and not file.is_file():  # reading a pipe would wait for a writer
        raise ValueError('it is not a regular file.')
    formats = [name for name in FORMATS if name in Image.OPEN]
    # From a stream: Pillow maps some TIFF files into memory if it has their name, with height and width exchanged.
    with file.open('rb') as stream, Image.open(stream, formats=formats) as image:
        image.load()  # Pillow rotates TIFF here; a PNG may have its EXIF block after its pixels
        turned = _upright(image)
        if turned.mode[0] in 'IF':  # I, I;16, I;16B, F
            turned = _eight_bits(turned, image)
        if 'transparency' in turned.info and turned.mode == 'P':
            turned = turned.convert('RGBA')
        return turned.convert(mode)


def forget_postscript() -> None:
    """Stop Pillow from opening PostScript for the rest of the process. timm's readers open any format that Pillow knows."""
    Image.init()
    if 'EPS' in Image.ID:  # the formats that Pillow tries by default
        Image.ID.remove('EPS')


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # a broken block says nothing about the pixels
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _eight_bits(image: Image.Image, source: Image.Image) -> Image.Image:
    """Grey in 'L'. 16-bit files define their range. 32-bit and float files do not: pixels in [0, 1] (float), [0, 255] or
    [0, 65535] (integer) are scaled from that range, others from their least to their greatest value. Floats up to 1.1 count as
    [0, 1]: resizing leaves values a little above 1."""
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
    elif image.mode == 'F' and high <= 1.1:
        high = 1.0
    else:
        high = 255.0 if high <= 255 else 65535.0
    scaled = np.clip((pixels - low) / (high - low or 1.0), 0, 1) * 255
    scaled = 255 - scaled if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else scaled
    return Image.fromarray(scaled.round().astype(np.uint8))
