"""Settings of files and batches. A part of ``settings.py``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class BatchSettings(BaseSettings):
    """How large files may be, how many there may be, and how much work goes on in the background."""

    file_bytes_max: int = Field(200_000_000, ge=1024, description="Largest file that may be uploaded, in bytes.")
    files_max: int = Field(1_000, ge=1, description="How many files somebody may have, those of batches too.")
    files_bytes_max: int = Field(5_000_000_000, ge=1024, description="How much somebody may have in files, in bytes.")
    batches_open_max: int = Field(100, ge=1, description="How many batches of somebody may wait or run.")
    batch_lines_max: int = Field(
        8, ge=1, le=1000, description="How many requests of batches are tried at once; they have what others leave."
    )
