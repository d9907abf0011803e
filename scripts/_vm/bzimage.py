# SPDX-License-Identifier: Apache-2.0
"""The plain kernel inside an x86 kernel image.

Decompression takes 3 of the 9 seconds of an emulated boot. QEMU can load the uncompressed kernel
directly, through its PVH entry point. It is the same kernel without KASLR.
"""

import lzma
import struct
import subprocess
from typing import Final

# Offsets in the boot protocol's header: Documentation/arch/x86/boot.rst of the kernel.
_SETUP_SECTORS: Final = 0x1F1
_MAGIC: Final = 0x202
_PAYLOAD: Final = 0x248
_SECTOR: Final = 512


def plain_kernel(image: bytes) -> bytes | None:
    """The ELF file in `image`, None if its compression is not supported."""
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        return None
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    begin = (image[_SETUP_SECTORS] + 1) * _SECTOR + offset
    packed = image[begin : begin + length]
    plain = b""
    if packed.startswith(b"\xfd7zXZ\0"):
        plain = lzma.LZMADecompressor().decompress(packed)
    elif packed.startswith(b"\x28\xb5\x2f\xfd"):
        # The last four bytes are the unpacked size.
        unpacked = subprocess.run(
            ["zstd", "-dcq"], input=packed[:-4], capture_output=True, check=False
        )
        plain = unpacked.stdout
    return plain if plain.startswith(b"\x7fELF") else None
