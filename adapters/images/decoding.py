"""Whether bytes are an image that can be shown to a model: decided by decoding them, within bounds."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import ExifTags, Image, UnidentifiedImageError

from manent.domain.errors import InvalidValue
from manent.domain.images import IMAGE_BYTES_MAX, PIXELS_MAX

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with more pictures behind the first, as some telephones write it
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
_ORIENTATION = ExifTags.Base.Orientation
_ON_ITS_SIDE = range(5, 9)
_WANTED = "send PNG, JPEG, WebP or GIF"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """What a file turned out to be; width and height are in pixels, after its EXIF orientation is applied."""

    media_type: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.width * self.height


def found_image(data: bytes, *, param: str) -> FoundImage:
    """Decode a file and say what it is.

    Raises:
        InvalidValue: it is too large, no image of the four formats, animated, cut off or damaged.
    """
    if len(data) > IMAGE_BYTES_MAX:
        raise InvalidValue(f"the image has {len(data)} bytes; at most {IMAGE_BYTES_MAX} are allowed", param=param)
    try:
        with warnings.catch_warnings(action="ignore"):
            # Opening reads the header only: what it says is judged before any pixel is made.
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            _check_header(image, param)
            width, height = image.size
            if image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
                width, height = height, width
    except InvalidValue:
        raise
    except UnidentifiedImageError:
        raise InvalidValue(f"this is no image that can be read; {_WANTED}", param=param) from None
    except Image.DecompressionBombError:
        raise _too_many_pixels("far more", param) from None
    except Exception as error:  # noqa: BLE001 (decoders raise whatever they come upon in a damaged file)
        raise InvalidValue(
            f"the image is cut off or damaged ({type(error).__name__}); {_WANTED}", param=param
        ) from None
    return FoundImage(media_type=_MEDIA_TYPES[str(image.format)], width=width, height=height)


def _check_header(image: Image.Image, param: str) -> None:
    width, height = image.size
    if width * height > PIXELS_MAX:
        raise _too_many_pixels(f"{width} x {height} = {width * height}", param)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InvalidValue("the image is animated; send one still picture", param=param)
    image.load()


def _too_many_pixels(count: str, param: str) -> InvalidValue:
    return InvalidValue(f"the image has {count} pixels; at most {PIXELS_MAX} are allowed", param=param)
