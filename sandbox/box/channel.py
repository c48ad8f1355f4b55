"""Length-prefixed messages over the control socket: 4 bytes of length, 1 byte of kind, body.

To the worker: I (set-up), J (job: program), T (test), A (abort the run), E (end of the job).
From it: R (ready), D (facts of a run), C (the program does not compile), H (still running), X (supervisor died).
"""

import os
import struct

HEAD = struct.Struct("<IB")
_CHUNK = 1 << 20

# cpu_us, wall_us, memory_kb (resident, above the baseline), address space slack kb (0: none is set), output bytes,
# length of the options (JSON: call, arguments, files, collect, interactor); options, files and input follow
TEST = struct.Struct("<QQQQQI")
# reason, wait status, cpu_us, wall_us, peak kb, length of stderr tail, of the value, of the output
RESULT = struct.Struct("<BiQQQIQQ")
FINISHED, CPU, WALL, MEMORY, DISK, THREADS, ABORTED, UNSTARTED, OUTPUT = range(9)


class Closed(Exception):
    """The controller has gone."""


class Channel:
    """The socket by its descriptor: the socket module would be one more thing for every run to inherit."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray(_CHUNK)

    def head(self):
        """(kind, length of the body) of the next message; the body must be read next."""
        length, kind = HEAD.unpack(self.read(HEAD.size))
        return chr(kind), length

    def read(self, length: int) -> bytes:
        parts = []
        while length:
            part = os.read(self.fd, min(length, _CHUNK))
            if not part:
                raise Closed
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def read_into_file(self, length: int, fd: int) -> None:
        """Moves `length` bytes into `fd` and leaves no copy in this process, whose memory runs inherit."""
        view = memoryview(self._buffer)
        while length:
            count = os.readv(self.fd, [view[: min(length, _CHUNK)]])
            if not count:
                raise Closed
            done = 0
            while done < count:
                done += os.write(fd, view[done:count])
            view[:count] = bytes(count)
            length -= count

    def send(self, kind: str, *parts: bytes) -> None:
        body = b"".join(parts)
        self._write(HEAD.pack(len(body), ord(kind)) + body)

    def _write(self, data: bytes) -> None:
        done = os.write(self.fd, data)
        while done < len(data):
            done += os.write(self.fd, data[done:])

    def send_with_file(self, kind: str, body: bytes, fd: int, size: int) -> None:
        """Sends `body` followed by the first `size` bytes of the file `fd`."""
        head = HEAD.pack(len(body) + size, ord(kind)) + body
        if size <= 65536:
            data = os.pread(fd, size, 0)
            self._write(head + data + bytes(size - len(data)))
            return
        self._write(head)
        done = 0
        while done < size:
            count = os.sendfile(self.fd, fd, done, min(size - done, _CHUNK))
            if count == 0:
                raise OSError("output file shrank while it was read")
            done += count
