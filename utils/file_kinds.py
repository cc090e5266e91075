"""Identify the kind of a file from its first bytes, whatever its name."""

import json
import struct
import zipfile
from pathlib import Path

TORCH, SAFETENSORS = "torch", "safetensors"
START = 512  # bytes at the beginning of a file that tell its kind
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format

_ARCHIVES = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z", b"\x28\xb5\x2f\xfd": "zstd",
    b"Rar!": "RAR", b"PK\x03\x04": "zip",
}  # fmt: skip
_FOR_PYTORCH = "fetch the weights for PyTorch (.pth or .safetensors)"
_GIVE_WEIGHTS = "give the file of weights"
_AGAIN = "it was cut short on its way here; fetch it again"
# First bytes of files that could be taken for weights -> kind of file, and what the user should do.
_STARTS = {
    b"\x89HDF\r\n": f"an HDF5 file (Keras, TensorFlow); {_FOR_PYTORCH}",
    b"\x93NUMPY": f"a NumPy array; {_FOR_PYTORCH}",
    b"GGUF": f"a GGUF file; {_FOR_PYTORCH}",
    b"\x08\x01\x12": f"a TensorFlow model; {_FOR_PYTORCH}",
    b"\x89PNG": f"a picture; {_GIVE_WEIGHTS}",
    b"\xff\xd8\xff": f"a picture; {_GIVE_WEIGHTS}",
}


def read_start(path: Path) -> bytes:
    """Read the first bytes of a file, which tell its kind."""
    with open(path, "rb") as file:
        return file.read(START)


def identify_foreign(start: bytes, *, wanted: str) -> tuple[str, str] | None:
    """Identify a file that holds no data of its own: empty, text, a web page, an archive, ...

    Args:
        start: the first `START` bytes of the file.
        wanted: what the user should give instead, such as "file of weights".

    Returns:
        What the file is, which completes the sentence "FILE is", and the mend; None for other files.
    """
    if not start.strip(b"\0"):
        return ("nothing but zeros" if start else "empty"), _AGAIN
    if start.startswith(b"version https://git-lfs"):
        return f"a Git-LFS pointer to the {wanted}", "fetch it with `git lfs pull` or a download link"
    if start.startswith(b"%PDF"):
        return "a PDF", f"give the {wanted}"
    if start.startswith(b"PK\x05\x06"):
        return "an empty zip archive", f"give the {wanted}"
    archive = next((name for magic, name in _ARCHIVES.items() if start.startswith(magic)), None)
    if archive or start[257:262] == b"ustar":
        return f"a {archive or 'tar'} archive", f"unpack it and give the {wanted} inside"
    return _identify_text(start, wanted)


def _identify_text(start: bytes, wanted: str) -> tuple[str, str] | None:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return f"a web page, saved in place of the {wanted}", "fetch the file behind its download link"
    if b"\0" in start or any(byte < 9 for byte in start):
        return None
    try:
        start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # more than a character cut in two at the end
            return None
    kind = "JSON (a configuration, or an index of files)" if text.startswith((b"{", b"[")) else "text"
    return kind, f"give the {wanted}"


def identify_weights(path: Path) -> str:
    """Return `TORCH` or `SAFETENSORS` for a file of these kinds, otherwise a description of the file with the mend.

    The description completes the sentence "FILE is": `a web page; fetch ...`.
    """
    start = read_start(path)
    if found := next((words for magic, words in _STARTS.items() if start.startswith(magic)), None):
        return found
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if _is_safetensors(start):
        return SAFETENSORS
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):  # a pickle of protocol 2 to 5
        return TORCH
    if found := identify_foreign(start, wanted="file of weights"):
        return "; ".join(found)
    return _kind_of_message(start) or "of no known kind, or damaged; fetch it again"


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


def _kind_of_message(start: bytes) -> str | None:
    """Recognise ONNX and Flax, which have no magic bytes.

    ONNX is a protocol buffer whose field 1 is a small version number; Flax is a map of MessagePack.
    """
    if start[:1] == b"\x08" and start[1:2] < b"\x20" and start[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return f"an ONNX model; {_FOR_PYTORCH}"
    if (b"\x81" <= start[:1] <= b"\x8f" and b"\xa1" <= start[1:2] <= b"\xbf") or start[:1] in (b"\xde", b"\xdf"):
        return f"a Flax file (MessagePack); {_FOR_PYTORCH}"
    return None
