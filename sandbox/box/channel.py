"""Length-prefixed messages over the control socket: 4 bytes of length, 1 byte of kind, body.

To the worker: I (set-up), J (job: program), T (test), A (abort the run), E (end of the job), S (a job and its only
test: length of the program, program, test).
From it: R (ready), D (facts of a run), C (the program does not compile), H (still running), X (supervisor died).
"""

import os
import struct

HEAD = struct.Struct("<IB")
_CHUNK = 1 << 20
_BUFFER = 1 << 16  # in the memory of every run

# cpu_us, wall_us, memory_kb (resident, above the baseline), address space slack kb (0: none is set), output bytes,
# length of the options (JSON: call, arguments, files, collect, interactor); options, files and input follow
TEST = struct.Struct("<QQQQQI")
# reason, wait status, cpu_us, wall_us, peak kb, length of stderr tail, of the value, of the output
RESULT = struct.Struct("<BiQQQIQQ")
LENGTH = struct.Struct("<I")
FINISHED, CPU, WALL, MEMORY, DISK, THREADS, ABORTED, UNSTARTED, OUTPUT = range(9)


class Closed(Exception):
    """The controller has gone."""


class Channel:
    """The socket by its descriptor: the socket module would be one more thing for every run to inherit."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray(_BUFFER)

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
            count = os.readv(self.fd, [view[: min(length, _BUFFER)]])
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

    def _write(self, data: bytes | memoryview) -> None:
        done = os.write(self.fd, data)
        while done < len(data):
            done += os.write(self.fd, data[done:])

    def send_files(self, kind: str, body: bytes, parts) -> None:
        """Sends `body`, then of each (descriptor, offset, length) that part of a file; keeps no copy."""
        total = len(body)
        for _, _, length in parts:
            total += length
        head = HEAD.pack(total, ord(kind)) + body
        if len(head) + total > _BUFFER:
            self._write(head)
            for fd, offset, length in parts:
                self._send_file(fd, offset, length)
            return
        end = len(head)
        with memoryview(self._buffer) as view:
            view[:end] = head
            for fd, offset, length in parts:
                if length:
                    count = os.preadv(fd, [view[end : end + length]], offset)
                    if count != length:
                        raise OSError("a file shrank while it was read")
                    end += length
            self._write(view[:end])
            view[:end] = bytes(end)

    def _send_file(self, fd: int, offset: int, length: int) -> None:
        while length:
            count = os.sendfile(self.fd, fd, offset, min(length, _CHUNK))
            if count == 0:
                raise OSError("a file shrank while it was read")
            offset += count
            length -= count
