"""Images before anybody keeps them: what is taken, what is refused and why, and what the domain makes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manent.adapters.images import decoding, reader
from manent.adapters.images.decoding import FoundImage
from manent.adapters.images.fetching import ImageFetcher
from manent.adapters.images.reader import CheckedImages
from manent.domain.commitments import SaltedDigest
from manent.domain.errors import InvalidValue
from manent.domain.generation import RenderedPrompt
from manent.domain.images import IMAGES_MAX, ImageSource, check_images
from manent.domain.messages import ImageDetail, Message, Role, TextPart, same_message
from tests.support.pictures import GREEN, animation, data_url, image_part, picture, png_of_size, rotated, shown

PNG = picture()


def read(url: str, **members: object) -> list[tuple[str, int, int]]:
    """What is found in a data URL."""
    source = ImageSource(url=url, param="here", **members)  # type: ignore[arg-type]  # the source's own members
    parts = CheckedImages(ImageFetcher("data")).read_embedded([source])
    return [(part.media_type, part.width, part.height) for part in parts]


@pytest.mark.parametrize(
    ("file", "found"),
    [
        (PNG, ("image/png", 64, 64)),
        (picture(kind="JPEG", width=40), ("image/jpeg", 40, 64)),
        (picture(kind="WEBP", height=31), ("image/webp", 64, 31)),
        (picture(kind="GIF"), ("image/gif", 64, 64)),
        (rotated(), ("image/jpeg", 32, 96)),
        (picture(width=1, height=1), ("image/png", 1, 1)),
    ],
)
def test_still_pictures_of_four_kinds_are_taken(file: bytes, found: tuple[str, int, int]) -> None:
    """What a file is, is found in it and not in its URL; sizes are those to be seen."""
    assert read(data_url(file, "image/whatever")) == [found]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (data_url(animation("GIF")), "the image is animated"),
        (data_url(animation("WEBP")), "the image is animated"),
        (data_url(animation("PNG")), "the image is animated"),
        (data_url(PNG[: len(PNG) // 2]), "cut off or damaged"),
        (data_url(picture(kind="JPEG")[:400]), "cut off or damaged"),
        (data_url(PNG[:60] + b"\xff" * 40 + PNG[100:]), "cut off or damaged"),
        (data_url(b"GIF89a"), "no image that can be read|cut off or damaged"),
        (data_url(picture(kind="BMP")), "no image that can be read; send PNG, JPEG, WebP or GIF"),
        (data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), "no image that can be read"),
        (data_url(b""), "no image that can be read"),
        (data_url(png_of_size(7_000, 8_000)), "7000 x 8000 = 56000000 pixels; at most 50000000"),
        (data_url(png_of_size(60_000, 60_000)), "pixels; at most 50000000"),
        (data_url(b"\0" * 10_000_001), "has 10000001 bytes; at most 10000000"),
        ("data:image/png;base64," + "A" * 20_000_000, "bytes; at most 10000000"),
        ("data:image/png;base64,***", "not in base64"),
        ("data:image/png,%89PNG", "it must be data:image/<type>;base64"),
        ("data:text/html;base64,AAAA", "it must be data:image/<type>;base64"),
        ("data:", "it must be data:image/<type>;base64"),
        ("https://example.com/a.png", "only images in data URLs"),
        ("file:///etc/passwd", "only images in data URLs"),
    ],
)
def test_everything_else_is_refused_with_what_is_wrong(url: str, says: str) -> None:
    """Animated, damaged, huge and foreign files are named as such, with the place in the request."""
    with pytest.raises(InvalidValue, match=says) as refused:
        read(url)
    assert refused.value.param == "here"


def test_a_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pixel of an image that says it is too large is ever made."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    for size in (8_000, 60_000):
        with pytest.raises(InvalidValue, match="pixels"):
            read(data_url(png_of_size(size, size)))


async def test_what_is_resent_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn costs the decoding of its new images, however many the history has; and all of a request are bounded."""
    decoded: list[int] = []

    def counting(data: bytes, *, param: str) -> FoundImage:
        decoded.append(len(data))
        return decoding.found_image(data, param=param)

    monkeypatch.setattr(reader, "found_image", counting)
    images = CheckedImages(ImageFetcher("data"))
    sources = [ImageSource(url=data_url(picture(width=width))) for width in (10, 20)]
    first = await images.read(sources)
    assert await images.read([*sources, ImageSource(url=data_url(picture(width=30)))]) == [
        *first,
        *images.read_embedded([ImageSource(url=data_url(picture(width=30)))]),
    ]
    assert len(decoded) == 3

    monkeypatch.setattr(reader, "REQUEST_PIXELS_MAX", 100 * 64)
    with pytest.raises(InvalidValue, match="pixels together"):
        await CheckedImages(ImageFetcher("data")).read(
            [ImageSource(url=data_url(picture(width=width))) for width in (60, 61)]
        )
    with pytest.raises(InvalidValue, match="has 33 images; at most 32"):
        await images.read(sources * 16 + sources[:1])


def test_images_stand_where_they_were_said() -> None:
    """Between texts, several in a row, at the ends, and alone."""
    texts = TextPart(text="a"), TextPart(text="b")
    images = tuple(image_part(PNG, text_before=place) for place in (0, 1, 1, 2))
    message = Message(message_id="m", role=Role.USER, content=texts, images=images)
    kinds = ["text" if isinstance(part, TextPart) else part.text_before for part in message.parts]
    assert kinds == [0, "text", 1, 1, "text", 2]
    assert Message(message_id="m", role=Role.USER, content=(), images=images[:1]).parts == [images[0]]


def test_the_same_words_with_another_image_are_another_message() -> None:
    """What is compared is which images there are and where; how closely they were to be looked at is not."""
    one, other = shown("look", PNG), shown("look", picture(color=GREEN))
    assert not same_message(one, other)
    assert not same_message(one, shown("look"))
    closely = replace(one.images[0], detail=ImageDetail.HIGH)
    assert same_message(one, replace(one, message_id="else", images=(closely,)))
    assert not same_message(one, replace(one, images=(replace(one.images[0], text_before=1),)))


def test_commitments_name_images() -> None:
    """Prompts of the same tokens with other images have other digests; those of text alone are what they were."""
    salt = b"s" * 32
    prompts = [
        RenderedPrompt(token_ids=(1, 2), messages=messages)
        for messages in ((), (shown("x", PNG),), (shown("x", picture(color=GREEN)),))
    ]
    assert len({SaltedDigest.of(prompt.committed_bytes, salt=salt).digest for prompt in prompts}) == 3
    assert prompts[0].committed_bytes == prompts[0].token_bytes
    assert shown("é").committed_bytes == "é".encode()
    assert shown("é", PNG).committed_bytes.startswith("é".encode())


def test_what_a_model_is_shown_is_bounded() -> None:
    """Models that read text, too many images, and too many bytes are refused; text alone is nobody's business."""
    check_images("m", [shown("text alone")], reads_images=False)
    check_images("m", [shown("look", PNG)] * IMAGES_MAX, reads_images=True)
    with pytest.raises(InvalidValue, match="model m reads text alone"):
        check_images("m", [shown("look", PNG)], reads_images=False)
    with pytest.raises(InvalidValue, match="at most 32 at once"):
        check_images("m", [shown("look", PNG)] * (IMAGES_MAX + 1), reads_images=True)
    heavy = shown("look", PNG)
    heavy = replace(heavy, images=(replace(heavy.images[0], data=b"\0" * 9_000_000),))
    with pytest.raises(InvalidValue, match="54000000 bytes"):
        check_images("m", [heavy] * 6, reads_images=True)
