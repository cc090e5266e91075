"""Identify the kind of a file of weights from its first bytes, whatever its name."""

import json
import struct
import zipfile
from pathlib import Path

TORCH, SAFETENSORS = "torch", "safetensors"
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format

# First bytes -> kind of file, and what the user should do.
_STARTS = [
    (b"version https://git-lfs", "a Git-LFS pointer to the weights; fetch them with `git lfs pull` or a download link"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras, TensorFlow); fetch the weights for PyTorch (.pth or .safetensors)"),
    (b"\x93NUMPY", "a NumPy array; fetch the weights for PyTorch (.pth or .safetensors)"),
    (b"GGUF", "a GGUF file; fetch the weights for PyTorch (.pth or .safetensors)"),
    (b"\x08\x01\x12", "a TensorFlow model; fetch the weights for PyTorch (.pth or .safetensors)"),
    (b"\x1f\x8b", "a gzip archive; unpack it and give the file inside"),
    (b"BZh", "a bzip2 archive; unpack it and give the file inside"),
    (b"\xfd7zXZ", "an xz archive; unpack it and give the file inside"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it and give the file inside"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it and give the file inside"),
    (b"Rar!", "a RAR archive; unpack it and give the file inside"),
    (b"\x89PNG", "a picture; give the weights' file"),
    (b"\xff\xd8\xff", "a picture; give the weights' file"),
    (b"%PDF", "a PDF; give the weights' file"),
]
_FOR_PYTORCH = "fetch the weights for PyTorch (.pth or .safetensors)"
_AGAIN = "it was cut short on its way here; fetch it again"


def identify_weights(path: Path) -> str:
    """Return `TORCH` or `SAFETENSORS` for a file of these kinds, otherwise a description of the file with the mend.

    The description completes the sentence "FILE is": `a web page; fetch ...`.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    if not start.strip(b"\0"):
        return f"empty; {_AGAIN}" if not start else f"nothing but zeros; {_AGAIN}"
    if found := next((words for magic, words in _STARTS if start.startswith(magic)), None):
        return found
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if _is_safetensors(start):
        return SAFETENSORS
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):  # a pickle of protocol 2 to 5
        return TORCH
    if start[257:262] == b"ustar":
        return "a tar archive; unpack it and give the file inside"
    return _kind_of_text(start) or _kind_of_message(start) or "of no known kind, or damaged; fetch it again"


def explain_bad_safetensors(path: Path) -> str:
    """Describe what is wrong with a safetensors file that its library cannot read."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > size:
                raise ValueError
            header = json.loads(file.read(length))
        wanted = 8 + length + max(tensor["data_offsets"][1] for tensor in header.values() if "data_offsets" in tensor)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "its header is damaged or cut short; fetch it again"
    return f"has {size} of {wanted} bytes; {_AGAIN}" if size < wanted else "damaged; fetch it again"


def _is_safetensors(start: bytes) -> bool:
    """Tell whether a file begins with the length of a header (eight bytes) and the brace that opens the header."""
    return len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= _LARGEST_HEADER


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return f"the beginning of a zip file, as torch writes them; {_AGAIN}"
    if any(name.endswith("/constants.pkl") for name in names):
        return ("a TorchScript program, which is code; save its weights alone: "
                "torch.save(torch.jit.load(FILE).state_dict(), NEW)")  # fmt: skip
    if any(name.endswith("/data.pkl") for name in names):
        return TORCH
    if any(name.endswith(".npy") for name in names):
        return f"an archive of NumPy arrays (.npz; JAX, Flax or TensorFlow); {_FOR_PYTORCH}"
    if any(name.endswith(".h5") for name in names):
        return f"a Keras file; {_FOR_PYTORCH}"
    inside = next((name for name in names if name.endswith((".pth", ".pt", ".bin", ".safetensors", ".ckpt"))), None)
    return f"a zip archive; unpack it and give {inside or 'the file of weights'} inside"


def _kind_of_text(start: bytes) -> str | None:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page, saved in place of the weights; fetch the file behind its download link"
    if b"\0" in start or any(byte < 9 for byte in start):
        return None
    try:
        start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # more than a character cut in two at the end
            return None
    if text.startswith((b"{", b"[")):
        return "JSON (a configuration, or the index of several files); give the file of weights"
    return "text; give the file of weights"


def _kind_of_message(start: bytes) -> str | None:
    """Recognise ONNX and Flax, which have no magic bytes.

    ONNX is a protocol buffer whose field 1 is a small version number; Flax is a map of MessagePack.
    """
    if start[:1] == b"\x08" and start[1] < 32 and start[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return f"an ONNX model; {_FOR_PYTORCH}"
    if (0x81 <= start[0] <= 0x8F and 0xA1 <= start[1] <= 0xBF) or start[:1] in (b"\xde", b"\xdf"):
        return f"a Flax file (MessagePack); {_FOR_PYTORCH}"
    return None
