"""Signed notes, verifier keys, checkpoints and proofs in files: the published examples, round trips, tampering."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example
from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.adapters.merkle.checkpoints import ProofFile, checkpoint_text, open_checkpoint
from manent.adapters.merkle.notes import NoteInvalid, Verifier, open_note, sign_note, split_note
from manent.domain.merkle import Frontier, inclusion_proof, leaf_hash
from manent.domain.transparency import TreeHead

# The example of golang.org/x/mod/sumdb/note, which the specification of signed notes grew from.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    GO_TEXT
    + "\n\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJn"
    + "AM=\n"
)
# The example of c2sp.org/tlog-checkpoint; its key is not published.
SOFA_SIGNATURE = "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8="
SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    f"\u2014 example.com/behind-the-sofa {SOFA_SIGNATURE}\n"
)
SUM_GOLANG_ORG = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
NAME = "manent/log_1"
VERIFIER = Verifier(NAME, KEY.public_key().public_bytes_raw())
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n")).map(lambda text: text + "\n")


def test_the_published_note_opens_with_its_key() -> None:
    """What others signed verifies here: key id, verifier key and signature are as everywhere else."""
    assert open_note(GO_NOTE, Verifier.parse(GO_KEY)) == GO_TEXT
    assert str(Verifier.parse(GO_KEY)) == GO_KEY
    assert str(Verifier.parse(SUM_GOLANG_ORG)) == SUM_GOLANG_ORG


def test_the_specifications_checkpoint_is_read() -> None:
    """Text, name, key id and signature are where the specification puts them."""
    text, (signature,) = split_note(SOFA)
    assert text.split("\n")[:2] == ["example.com/behind-the-sofa", "20852163"]
    assert signature.name == "example.com/behind-the-sofa"
    assert signature.key_id + signature.signature == base64.b64decode(SOFA_SIGNATURE)
    assert len(signature.signature) == 64


@for_all(TEXTS)
@example("\n\n\n")
def test_what_is_signed_opens(text: str) -> None:
    """Any text that may stand in a note comes back, and under no other key or name."""
    note = sign_note(text, NAME, KEY)
    assert open_note(note, VERIFIER) == text
    for other in (Verifier("manent/log_2", VERIFIER.public_key), Verifier(NAME, bytes(32))):
        with pytest.raises(NoteInvalid, match="not signed by"):
            open_note(note, other)


@for_all(st.data())
def test_a_changed_note_does_not_open(data: st.DataObject) -> None:
    """Whichever character of text, name, key id or signature is changed."""
    note = sign_note(checkpoint_text(NAME, TreeHead(size=7, root=leaf_hash(b"x"))), NAME, KEY)
    place = data.draw(st.integers(0, len(note) - 1))
    letter = data.draw(st.characters(exclude_categories=["Cs"], exclude_characters=note[place]))
    with pytest.raises(NoteInvalid):
        open_note(note[:place] + letter + note[place + 1 :], VERIFIER)


def test_signatures_of_others_do_not_matter() -> None:
    """A witness may sign too, before or after; sixteen signatures are few."""
    note = sign_note("text\n", NAME, KEY)
    other = sign_note("text\n", "witness.example", Ed25519PrivateKey.from_private_bytes(b"w" * 32))
    line = other.rsplit("\n\n", 1)[1]
    assert open_note(note + line * 15, VERIFIER) == "text\n"
    assert open_note(other + note.rsplit("\n\n", 1)[1], VERIFIER) == "text\n"
    with pytest.raises(NoteInvalid, match="does not belong"):
        open_note(note + sign_note("else\n", NAME, KEY).rsplit("\n\n", 1)[1], VERIFIER)
    with pytest.raises(NoteInvalid, match="at most"):
        open_note(note + line * 64, VERIFIER)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        "text\n\n",
        "\n\u2014 n AAAAAAAA\n",
        "text\n\nnothing\n",
        "text\n\n\u2014 n AAAA\n",
        "a\tb\n\n\u2014 n AAAAAAAA\n",
    ]
    + [f"text\n\n\u2014 {rest}\n" for rest in ("n+m AAAAAAAA", "n AAAAAAA", "n AAAAAAAB=", " AAAAAAAA", "n AAAAAAAA ")],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    """Malformed notes are told apart from unsigned ones, and never open."""
    with pytest.raises(NoteInvalid):
        split_note(note)


@pytest.mark.parametrize("text", ["no line feed", "tab\t\n", "return\r\n", "nul\0\n"])
def test_what_cannot_stand_in_a_note_is_not_signed(text: str) -> None:
    """The text ends in a line feed, and has no other control characters."""
    with pytest.raises(NoteInvalid, match="line feed"):
        sign_note(text, NAME, KEY)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b"])
def test_a_name_that_cannot_stand_in_a_note_is_refused(name: str) -> None:
    """Names have neither spaces nor plus signs."""
    with pytest.raises(NoteInvalid, match="key name"):
        sign_note("text\n", name, KEY)


@pytest.mark.parametrize(
    "key",
    [
        "",
        GO_KEY[:-1],
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("Peter", "Petra"),
        GO_KEY.replace("+AR", "+BR"),
    ],
)
def test_a_wrong_verifier_key_is_refused(key: str) -> None:
    """A key's id belongs to its name and bytes, so that a slip of the pen is noticed."""
    with pytest.raises(NoteInvalid):
        Verifier.parse(key)


@for_all(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_checkpoints_come_back(size: int, root: bytes) -> None:
    """Origin, size and root survive; the origin is the key's name."""
    head = TreeHead(size=size, root=root)
    assert open_checkpoint(sign_note(checkpoint_text(NAME, head), NAME, KEY), VERIFIER) == head


@pytest.mark.parametrize(
    "text",
    [
        "manent/log_2\n1\n" + "A" * 43 + "=\n",
        NAME + "\n01\n" + "A" * 43 + "=\n",
        NAME + "\n-1\n" + "A" * 43 + "=\n",
        NAME + "\n1\nAAAA\n",
        NAME + "\n1\n",
        NAME + "\n1\n" + "A" * 43 + "=\n\nextension\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    """Another log's origin, leading zeros, short roots and empty lines are not a checkpoint of this log."""
    with pytest.raises(NoteInvalid):
        open_checkpoint(sign_note(text, NAME, KEY), VERIFIER)


def proof_file(size: int, index: int) -> ProofFile:
    """A proof of one of ``size`` entries."""
    leaves = [leaf_hash(str(number).encode()) for number in range(size)]
    nodes = {(0, number): leaf for number, leaf in enumerate(leaves)}
    frontier = Frontier().extended(leaves, lambda level, number, node: nodes.update({(level, number): node}))
    note = sign_note(checkpoint_text(NAME, TreeHead(size=size, root=frontier.root)), NAME, KEY)
    hashes = inclusion_proof(index, size, lambda level, number: nodes[level, number])
    return ProofFile(entry=str(index).encode(), index=index, hashes=hashes, checkpoint=note)


@for_all(st.integers(1, 40), st.data())
def test_proof_files_come_back_and_verify(size: int, data: st.DataObject) -> None:
    """What is written is read and holds, for every leaf of every tree."""
    proof = proof_file(size, data.draw(st.integers(0, size - 1)))
    read = ProofFile.parse(str(proof))
    assert read == proof
    assert read.verify(VERIFIER).size == size


@for_all(st.data())
def test_a_changed_proof_file_does_not_hold(data: st.DataObject) -> None:
    """Any character changed in entry, index, hashes or checkpoint makes it fail, and nothing else than fail."""
    text = str(proof_file(13, 6))
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("A0b/=\n +é").filter(lambda other: other != text[place]))
    with pytest.raises(NoteInvalid):
        ProofFile.parse(text[:place] + letter + text[place + 1 :]).verify(VERIFIER)


def test_a_proof_without_its_entry_is_refused() -> None:
    """Without the header there is nothing that the proof is of."""
    text = str(proof_file(3, 1))
    with pytest.raises(NoteInvalid, match="extra"):
        ProofFile.parse(text.replace(f"extra {base64.b64encode(b'1').decode()}\n", ""))
