"""The transparency log: an RFC 6962 Merkle tree over event headers, its proofs, and signed checkpoints of it."""
