"""The transparency log's outer side: signed notes, checkpoints, proofs in C2SP's formats, and the key that signs."""
