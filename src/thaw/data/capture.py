"""When and with what an image was captured, by its EXIF data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from PIL import ExifTags, Image

_SERIAL_NUMBER = 0xA431
_LONGEST = 64


@dataclass(frozen=True)
class Capture:
    """When and with what an image was captured; empty where the file does not say.

    Attributes:
        time: Local time as `2021-03-04 11:22:33`.
        device: Model and serial number of the camera.
    """

    time: str = ""
    device: str = ""

    @property
    def moment(self) -> datetime | None:
        """The time, if there is one."""
        return datetime.fromisoformat(self.time) if self.time else None


NO_CAPTURE = Capture()


def capture_of(image: Image.Image) -> Capture:
    """The capture that the EXIF data of an image tell; the time of a later change to the file is not one."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
    except Exception:
        # Damaged bytes raise arbitrary exceptions.
        return NO_CAPTURE
    texts = [details.get(tag) for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized)]
    times = [time for text in texts if (time := _time(text))]
    device = f"{_text(exif.get(ExifTags.Base.Model))} {_text(details.get(_SERIAL_NUMBER))}"
    return Capture(times[0] if times else "", device.strip())


def _time(value: object) -> str:
    """EXIF's `2021:03:04 11:22:33` in the form of `Capture`; empty for zeros, blanks and impossible times."""
    try:
        return str(datetime.strptime(_text(value), "%Y:%m:%d %H:%M:%S"))
    except ValueError:
        return ""


def _text(value: object) -> str:
    """A text as one printable line without zero bytes and blanks around it; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in value[:_LONGEST]).split())
