"""Decodes image files: from the bytes of any file to one square RGB array, or a reason why not."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from cldmray.arrays import Images
from cldmray.errors import CldmrayError

MAX_FILE_BYTES = 1 << 28
MAX_PIXELS = 160_000_000
"""Of an image, unless a source says otherwise; the largest cameras take 150 million."""
MOST_PIXELS = 178_956_970
"""Pillow opens no larger image."""

Image.init()
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
    if name in Image.OPEN
)
"""Formats that are tried, whatever the extension says; none of them runs another program."""

MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n",
    b"GIF8",
    b"RIFF",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"\0\0\0\x0cjP",
)

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What stands at byte 8 of the files that phones write as HEIC."""

ORIENTATION = 0x0112
"""EXIF tag of the orientation."""
UPRIGHT = 1
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is made upright, by its orientation."""

CANNOT_OPEN = "cannot be opened"
EMPTY = "empty file"
TOO_LARGE = "file too large"
NOT_AN_IMAGE = "not an image"
TOO_MANY_PIXELS = "more pixels than faces.max_pixels allows"
NO_HEIF = "HEIC, which needs the package pillow-heif: pip install 'cldmray[heic]'"
TRUNCATED = "truncated"
UNREADABLE = "unreadable"
SMALLER_THAN_CROP = "smaller than the crop"
NO_FACE = "no face found"


class InvalidImageError(CldmrayError):
    """A file that yields no image; ``reason`` is short and the same for the same fault."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(
    content: bytes | None,
    crop: Sequence[int] | None,
    size: int,
    max_pixels: int = MAX_PIXELS,
) -> Images:
    """One upright, square RGB image from an encoded file.

    EXIF orientation is applied before the crop, transparency is laid on white, 16-bit grey is
    scaled to 8 bits and of an animation the first frame counts. A file that ends early is
    rejected, never half-decoded. The result depends on the arguments alone.

    Args:
        content: the file's bytes; None for a file that could not be opened.
        crop: left, top, right, bottom in pixels of the upright image; None for the largest
            central square.
        size: side of the output in pixels; resized with Pillow's antialiased Lanczos filter.
        max_pixels: images with more pixels are rejected before they are decoded.

    Returns:
        uint8 array, shape (size, size, 3), RGB, values 0..255.

    Raises:
        InvalidImageError: with the reason.
    """
    upright = _upright_image(content, max_pixels, 3 * size if crop is None else None)
    return _square(upright, crop, size)


def square_of(image: Images, crop: Sequence[int] | None, size: int) -> Images:
    """The square of a decoded image that :func:`decode` would give.

    Args:
        image: RGB, uint8, shape (height, width, 3), upright.
        crop, size: see :func:`decode`.

    Raises:
        InvalidImageError: the image is smaller than the crop.
    """
    return _square(Image.fromarray(image), crop, size)


def _square(upright: Image.Image, crop: Sequence[int] | None, size: int) -> Images:
    left, top, right, bottom = _central_square(upright.size) if crop is None else tuple(crop)
    if right > upright.width or bottom > upright.height:
        raise InvalidImageError(SMALLER_THAN_CROP)
    square = upright.crop((left, top, right, bottom))
    return np.array(square.resize((size, size), Image.Resampling.LANCZOS))


def decode_whole(content: bytes | None, max_pixels: int = MAX_PIXELS) -> Images:
    """The whole upright image of an encoded file, as :func:`decode` reads it.

    Args:
        content, max_pixels: see :func:`decode`.

    Returns:
        uint8 array, shape (height, width, 3), RGB.

    Raises:
        InvalidImageError: with the reason.
    """
    return np.array(_upright_image(content, max_pixels, None))


def orientation(content: bytes | None) -> int:
    """EXIF orientation of an encoded file, 1 to 8; 1 where it says none or cannot be read."""
    if not content:
        return UPRIGHT
    try:
        value = _open(content, MOST_PIXELS).getexif().get(ORIENTATION, UPRIGHT)
    except Exception:
        return UPRIGHT
    return int(value) if value in TRANSPOSES else UPRIGHT


def turned_by(image: Images, value: int) -> Images:
    """An image as it is shown where its file has an EXIF orientation.

    Args:
        image: as stored, uint8, shape (height, width, 3).
        value: of the orientation, 1 to 8.

    >>> turned_by(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), 6).tolist()
    [[[0, 1, 2]], [[3, 4, 5]]]
    """
    if value == UPRIGHT:
        return image
    return np.array(Image.fromarray(image).transpose(TRANSPOSES[value]))


def _upright_image(content: bytes | None, max_pixels: int, draft: int | None) -> Image.Image:
    """The upright RGB image; a JPEG may be decoded smaller, its sides at least ``draft`` pixels."""
    if content is None:
        raise InvalidImageError(CANNOT_OPEN)
    if not content:
        raise InvalidImageError(EMPTY)
    if len(content) > MAX_FILE_BYTES:
        raise InvalidImageError(TOO_LARGE)
    image = _open(content, max_pixels)
    if draft is not None:
        image.draft(None, (draft, draft))
    try:
        image.load()
        upright = _rgb(_upright(image))
    except Exception as error:
        raise InvalidImageError(_load_reason(error)) from error
    if image.format == "PNG" and b"IEND" not in content:
        raise InvalidImageError(TRUNCATED)
    return upright


def _open(content: bytes, max_pixels: int) -> Image.Image:
    """An image with at most so many pixels, which are decoded later; those of a HEIC, at once."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InvalidImageError(TOO_MANY_PIXELS) from error
    except UnidentifiedImageError as error:
        if content[4:8] == b"ftyp" and content[8:12] in HEIF_BRANDS:
            return _open_heif(content, max_pixels)
        is_image = content.startswith(MAGIC)
        raise InvalidImageError(UNREADABLE if is_image else NOT_AN_IMAGE) from error
    except Exception as error:
        raise InvalidImageError(_load_reason(error)) from error
    _check_pixels(image.size, max_pixels)
    return image


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise InvalidImageError(TOO_MANY_PIXELS)


def _open_heif(content: bytes, max_pixels: int) -> Image.Image:
    """The main image of a HEIC file, which is upright: its decoder turns it."""
    try:
        from pillow_heif import open_heif
    except ImportError as error:
        raise InvalidImageError(NO_HEIF) from error
    try:
        file = open_heif(content, convert_hdr_to_8bit=True)
        _check_pixels(file.size, max_pixels)
        image: Image.Image = file.to_pillow()
    except InvalidImageError:
        raise
    except Exception as error:
        raise InvalidImageError(_load_reason(error)) from error
    return image


def _load_reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return TOO_MANY_PIXELS
    text = str(error).lower()
    early_end = isinstance(error, EOFError) or "truncat" in text or "broken data stream" in text
    return TRUNCATED if early_end else UNREADABLE


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says; as it is where that cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


def _eight_bits(grey: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Grey of 16 or 32 bits or floats as 8 bits; the full range of the values is kept.

    White is 65535 for whole numbers and 1, 255 or 65535 for floats, whichever first holds the
    image; beyond these it is the brightest value.
    """
    values = np.nan_to_num(np.asarray(grey, np.float64), posinf=0.0)
    brightest = float(values.max())
    limits = (1.0, 255.0, 65535.0) if grey.dtype.kind == "f" else (65535.0,)
    white = next((limit for limit in limits if brightest <= limit), brightest)
    return np.rint(np.clip(values / white, 0.0, 1.0) * 255.0).astype(np.uint8)


def _central_square(size: tuple[int, int]) -> tuple[int, int, int, int]:
    width, height = size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
