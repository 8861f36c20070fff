"""Every kind of image file, good and bad."""

import io
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from cldmray.faces import decode as faces_decode
from cldmray.faces.decode import TOO_MANY_PIXELS, InvalidImageError, decode

GREY_BLUE = (40, 80, 160)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width=48, height=48):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def reason(content, crop=None, size=16, **options):
    with pytest.raises(InvalidImageError) as caught:
        decode(content, crop, size, **options)
    return caught.value.reason


def colour(content, **options):
    image = decode(content, None, 8, **options)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert (image == image[0, 0]).all()
    return tuple(int(level) for level in image[0, 0])


def test_pixels_are_kept_where_nothing_is_resized():
    image = noise()
    assert (decode(encoded(image), [8, 4, 24, 20], 16) == np.asarray(image)[4:20, 8:24]).all()
    assert (decode(encoded(image), None, 48) == np.asarray(image)).all()


def test_without_a_crop_the_central_square_counts():
    image = Image.new("RGB", (60, 20), "red")
    image.paste(GREY_BLUE, (20, 0, 40, 20))
    assert colour(encoded(image)) == GREY_BLUE
    assert colour(encoded(image.transpose(Image.Transpose.ROTATE_90))) == GREY_BLUE


def test_shrinking_is_antialiased():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    image = decode(encoded(Image.fromarray(board.astype(np.uint8))), None, 8)
    assert abs(image.astype(int) - 128).max() < 10


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGB", (20, 20), GREY_BLUE), GREY_BLUE),
        (Image.new("L", (20, 20), 77), (77, 77, 77)),
        (Image.new("1", (20, 20), 1), (255, 255, 255)),
        (Image.new("1", (20, 20), 0), (0, 0, 0)),
        (Image.new("RGBA", (20, 20), (*GREY_BLUE, 255)), GREY_BLUE),
        (Image.new("RGBA", (20, 20), (*GREY_BLUE, 0)), (255, 255, 255)),
        (Image.new("RGBA", (20, 20), (0, 0, 0, 51)), (204, 204, 204)),
        (Image.new("LA", (20, 20), (100, 0)), (255, 255, 255)),
        (Image.new("RGB", (20, 20), GREY_BLUE).quantize(4), GREY_BLUE),
    ],
    ids=[
        "rgb",
        "grey",
        "white-bit",
        "black-bit",
        "opaque",
        "clear",
        "veil",
        "clear-grey",
        "palette",
    ],
)
def test_modes(image, expected):
    assert colour(encoded(image)) == pytest.approx(expected, abs=1)


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, *GREY_BLUE])
    assert colour(encoded(image)) == GREY_BLUE
    assert colour(encoded(image, transparency=1)) == (255, 255, 255)


def test_cmyk():
    image = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    assert colour(encoded(image, "JPEG", quality=95)) == pytest.approx((0, 255, 255), abs=3)
    assert colour(encoded(image, "TIFF")) == (0, 255, 255)


@pytest.mark.parametrize(
    ("level", "kind", "dtype", "expected"),
    [
        (65535, "PNG", np.uint16, 255),
        (32896, "PNG", np.uint16, 128),
        (257, "PNG", np.uint16, 1),
        (32896, "TIFF", np.uint16, 128),
        (32896, "TIFF", np.int32, 128),
        (0.5, "TIFF", np.float32, 128),
        (200.0, "TIFF", np.float32, 200),
    ],
)
def test_deep_grey_is_scaled_and_not_clipped(level, kind, dtype, expected):
    image = Image.fromarray(np.full((20, 20), level, dtype))
    assert colour(encoded(image, kind)) == (expected, expected, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_before_the_crop(orientation):
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste("black", (0, 0, 16, 16))
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    undo = {6: turns[8], 8: turns[6]}.get(orientation, turns.get(orientation))
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(stored, "PNG", exif=exif)
    assert (decode(content, [0, 0, 16, 16], 16) == 0).all()
    assert (decode(content, [48, 16, 64, 32], 16) == 255).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_matter():
    content = encoded(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(content, None, 16).shape == (16, 16, 3)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (20, 20), shade) for shade in ("#000000", "#ffffff")]
    for kind in ("GIF", "PNG", "WEBP"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert colour(content) == (0, 0, 0)


def test_extreme_shapes():
    assert decode(encoded(Image.new("RGB", (1, 3000), "red")), None, 16).shape == (16, 16, 3)
    assert decode(encoded(Image.new("RGB", (1, 1), "red")), None, 16).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_never_half_decoded(kind, share):
    content = encoded(noise(), kind)
    assert decode(content, None, 16).shape == (16, 16, 3)
    early = reason(content[: int(len(content) * share)])
    assert early in (faces_decode.TRUNCATED, faces_decode.UNREADABLE)


@pytest.mark.parametrize("missing", [2, 12, 20, 400])
def test_truncated_png_and_jpeg_say_so(missing):
    png, jpeg = encoded(noise()), encoded(noise(), "JPEG", progressive=True)
    if missing > 2:
        assert reason(png[:-missing]) == "truncated"
    assert reason(jpeg[:-missing]) == "truncated"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be opened"),
        (b"", "empty file"),
        (b"hello, I am a text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\xff\xd8\xff\xe0", "unreadable"),
        (b"\0" * 500, "not an image"),
    ],
)
def test_bad_files(content, expected):
    assert reason(content) == expected


@pytest.mark.parametrize("progressive", [False, True])
def test_large_jpegs_are_shrunk_while_decoding_and_still_checked(progressive):
    content = encoded(noise(800, 600), "JPEG", progressive=progressive)
    assert decode(content, None, 16).shape == (16, 16, 3)
    for share in (0.2, 0.5, 0.99):
        assert reason(content[: int(len(content) * share)]) == "truncated"


def test_damage_inside_a_file():
    content = bytearray(encoded(noise()))
    content[len(content) // 2] ^= 0xFF
    assert reason(bytes(content)) in ("unreadable", "truncated")


def test_bombs_are_rejected_before_they_are_decoded():
    assert reason(encoded(Image.new("1", (400, 300))), max_pixels=119_999) == TOO_MANY_PIXELS
    assert decode(encoded(Image.new("1", (400, 300))), None, 8, max_pixels=120_000).shape
    header = bytearray(encoded(Image.new("1", (8, 8))))
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    assert reason(bytes(header)) == TOO_MANY_PIXELS


def test_image_smaller_than_the_crop():
    content = encoded(noise(40, 60))
    assert reason(content, [0, 0, 41, 41]) == "smaller than the crop"
    assert decode(content, [0, 20, 40, 60], 16).shape == (16, 16, 3)


def test_too_large_file(monkeypatch):
    monkeypatch.setattr(faces_decode, "MAX_FILE_BYTES", 10)
    assert reason(b"x" * 11) == "file too large"
