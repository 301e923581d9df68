"""The port through which images come in: data URLs always, addresses where allowed; each file is checked once."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from manent.adapters.images.decoding import FoundImage, found_image
from manent.adapters.images.fetching import ImageFetcher
from manent.domain.errors import InvalidValue
from manent.domain.images import IMAGE_BYTES_MAX, IMAGES_MAX, PROMPT_BYTES_MAX, ImageSource
from manent.domain.messages import ImagePart

DATA = "data:"
REQUEST_PIXELS_MAX = 200_000_000
"""Of all images of one request that are seen for the first time: what decoding them costs is bounded by this."""
KNOWN_MAX = 4096
AT_ONCE_MAX = 2
FETCH_ALL_S = 60.0


class CheckedImages:
    """Implements ``manent.domain.images.ImageReader``. What clients resend is not decoded again."""

    def __init__(self, fetcher: ImageFetcher) -> None:
        self._fetcher = fetcher
        self._known: OrderedDict[str, FoundImage] = OrderedDict()
        self._lock = Lock()
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def read(self, sources: Sequence[ImageSource]) -> list[ImagePart]:
        """See ``ImageReader.read``; a few requests at a time, each on a thread."""
        if not sources:
            return []
        _check_count(sources)
        fetched = await self._fetched([source for source in sources if not _is_embedded(source)])
        async with self._at_once:
            return await asyncio.to_thread(self._read, sources, fetched)

    def read_embedded(self, sources: Sequence[ImageSource]) -> list[ImagePart]:
        """See ``ImageReader.read_embedded``."""
        for source in sources:
            if not _is_embedded(source):
                raise InvalidValue("only images in data URLs can be taken here", param=source.param)
        return self._read(sources, {})

    async def _fetched(self, sources: Sequence[ImageSource]) -> dict[str, bytes]:
        """What is at the addresses, by address."""
        fetched: dict[str, bytes] = {}
        try:
            async with asyncio.timeout(FETCH_ALL_S):
                for source in sources:
                    if source.url not in fetched:
                        fetched[source.url] = await self._fetcher.fetch(source.url, param=source.param)
                    if sum(map(len, fetched.values())) > PROMPT_BYTES_MAX:
                        raise InvalidValue(
                            f"the images of this request have more than {PROMPT_BYTES_MAX} bytes", param=source.param
                        )
        except TimeoutError:
            raise InvalidValue(
                f"the images of this request did not come within {FETCH_ALL_S:g} s", param=sources[len(fetched)].param
            ) from None
        return fetched

    def _read(self, sources: Sequence[ImageSource], fetched: dict[str, bytes]) -> list[ImagePart]:
        pixels = 0
        parts: list[ImagePart] = []
        for source in sources:
            data = fetched.get(source.url)
            data = _embedded(source) if data is None else data
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            found = self._look_up(digest)
            if found is None:
                found = found_image(data, param=source.param)
                pixels += found.pixels
                if pixels > REQUEST_PIXELS_MAX:
                    raise InvalidValue(
                        f"the images of this request have more than {REQUEST_PIXELS_MAX} pixels together",
                        param=source.param,
                    )
                self._keep(digest, found)
            parts.append(
                ImagePart(
                    digest=digest,
                    media_type=found.media_type,
                    width=found.width,
                    height=found.height,
                    data=data,
                    detail=source.detail,
                    text_before=source.text_before,
                )
            )
        return parts

    def _look_up(self, digest: str) -> FoundImage | None:
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
            return self._known.get(digest)

    def _keep(self, digest: str, found: FoundImage) -> None:
        with self._lock:
            self._known[digest] = found
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)


def _is_embedded(source: ImageSource) -> bool:
    return source.url[: len(DATA)].lower() == DATA


def _check_count(sources: Sequence[ImageSource]) -> None:
    if len(sources) > IMAGES_MAX:
        raise InvalidValue(
            f"the request has {len(sources)} images; at most {IMAGES_MAX} are allowed", param=sources[IMAGES_MAX].param
        )


def _embedded(source: ImageSource) -> bytes:
    """The bytes in a data URL (RFC 2397), which must be in base64."""
    head, comma, body = source.url.partition(",")
    if not comma or not head.lower().startswith("data:image/") or not head.lower().endswith(";base64"):
        raise InvalidValue(
            f"the data URL begins with {head[:80]!r}; it must be data:image/<type>;base64,<the file in base64>",
            param=source.param,
        )
    if len(body) > IMAGE_BYTES_MAX * 4 // 3 + 4:
        raise InvalidValue(
            f"the image has {len(body) * 3 // 4} bytes; at most {IMAGE_BYTES_MAX} are allowed", param=source.param
        )
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidValue("the data URL is not in base64", param=source.param) from None
