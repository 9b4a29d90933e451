import io

import pytest
from PIL import ExifTags, Image

from thaw.data.capture import NO_CAPTURE, Capture
from thaw.data.decode import Decoded, decode
from thaw.data.geometry import PixelSpec
from thaw.recipe import DecodeSettings

SERIAL_NUMBER = 0xA431


def photo(
    kind: str, time: object = None, model: object = None, serial: object = None, digitized: object = None
) -> bytes:
    """An image with EXIF data, that stands on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.DateTime] = "2024:12:31 00:00:00"
    if model is not None:
        exif[ExifTags.Base.Model] = model
    details = exif.get_ifd(ExifTags.IFD.Exif)
    given = {
        ExifTags.Base.DateTimeOriginal: time,
        ExifTags.Base.DateTimeDigitized: digitized,
        SERIAL_NUMBER: serial,
    }
    details.update({tag: value for tag, value in given.items() if value is not None})
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, kind, exif=exif)
    return stream.getvalue()


def read(data: bytes) -> Decoded:
    return decode(data, DecodeSettings(), PixelSpec(32, 1.0, "squash", "bilinear"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_time_and_device_are_read_with_the_pixels(kind: str) -> None:
    decoded = read(photo(kind, "2021:03:04 11:22:33", "Cam 7", "A1"))
    assert decoded.capture == Capture("2021-03-04 11:22:33", "Cam 7 A1")
    assert (decoded.width, decoded.height) == (10, 20)


def test_the_time_of_a_change_is_no_time_of_capture() -> None:
    assert read(photo("JPEG", model="Cam")).capture == Capture("", "Cam")
    assert read(photo("JPEG", digitized="2021:03:04 11:22:33")).capture.time == "2021-03-04 11:22:33"


@pytest.mark.parametrize(
    "time", ["0000:00:00 00:00:00", "2021:13:04 11:22:33", "    :  :     :  :  ", "yesterday", "\0"]
)
def test_what_is_no_time_is_ignored(time: str) -> None:
    assert read(photo("JPEG", time, "Cam\0\n 7 ")).capture == Capture("", "Cam 7")


def test_an_image_without_exif_data_has_no_capture() -> None:
    stream = io.BytesIO()
    Image.new("L", (9, 9)).save(stream, "PNG")
    assert read(stream.getvalue()).capture == NO_CAPTURE


def test_damaged_details_cost_neither_the_pixels_nor_the_orientation() -> None:
    data = photo("JPEG", "2021:03:04 11:22:33", "Cam")
    for start in range(data.index(b"Exif"), data.index(b"2021:03:04")):
        damaged = bytearray(data)
        damaged[start] ^= 0xFF
        assert read(bytes(damaged)).capture.time in ("", "2021-03-04 11:22:33")
