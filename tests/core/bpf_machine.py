"""A small interpreter of the classic BPF that seccomp accepts."""

import struct
from typing import NamedTuple


class Call(NamedTuple):
    """The data that the kernel passes to a filter: `struct seccomp_data`."""

    number: int
    arch: int
    arguments: tuple[int, ...] = ()

    def packed(self) -> bytes:
        padded = (*self.arguments, *(0,) * (6 - len(self.arguments)))
        words = [value & 0xFFFF_FFFF_FFFF_FFFF for value in padded]
        return struct.pack("=IIQ6Q", self.number & 0xFFFF_FFFF, self.arch, 0, *words)


def run(program: bytes, call: Call) -> int:
    """The return value of the program; raises `ValueError` for anything the kernel wouldn't accept."""
    data = call.packed()
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = 0
    position = 0
    while position < len(instructions):
        code, if_true, if_false, k = instructions[position]
        position += 1
        if code == 0x20:
            if k % 4 or k > len(data) - 4:
                raise ValueError(f"load from {k}")
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            position += k
        elif code == 0x15:
            position += if_true if accumulator == k else if_false
        elif code == 0x35:
            position += if_true if accumulator >= k else if_false
        elif code == 0x06:
            return k
        else:
            raise ValueError(f"instruction {code:#x}")
    raise ValueError("ran past the end")
