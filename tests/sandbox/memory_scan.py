"""A program that looks through its own memory for words that are not its own."""

from __future__ import annotations

import textwrap

# The words are looked for in a disguise, so that the program's own copy is not what is found. Unmapped pages are told
# from mapped ones by writing them to a file, since /proc/self/maps is not to be had.
_SCAN = """
import ctypes, os
words, flip = WORDS, bytes(i ^ 0x80 for i in range(256))
try: given = input()
except EOFError: pass
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
libc.write.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
probe = os.open('probe', os.O_RDWR | os.O_CREAT)
anchors = [libc.sbrk(0), id([]), id(os), id('x' * 300000), id(bytes(5000)), ctypes.addressof(ctypes.c_int())]
pages = set()
for anchor in anchors:
    pages.update(range((anchor & ~4095) - (24 << 20), (anchor & ~4095) + (8 << 20), 4096))
found, last = set(), b''
for page in sorted(pages):
    os.lseek(probe, 0, 0)
    if libc.write(probe, page, 4096) != 4096:
        last = b''
        continue
    text = (last[-100:] + ctypes.string_at(page, 4096)).translate(flip)
    last = text.translate(flip)
    found.update(number for number, word in enumerate(words) if word in text)
"""


def scanner(*words: str, then: str = "print(sorted(found))") -> str:
    """Source of a program that sets `found` to the numbers of the `words` it has in memory, then does `then`."""
    disguised = [bytes(c ^ 0x80 for c in word.encode()) for word in words]
    return textwrap.dedent(_SCAN).replace("WORDS", repr(disguised)) + then + "\n"
