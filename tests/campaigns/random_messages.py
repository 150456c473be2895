"""Messages of the replication channel with random fields, made from their types alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

encode = msgspec.msgpack.Encoder().encode
MAX_ITEMS = 4
MAX_TEXT = 12
MAX_NOISE_BYTES = 300
DIGEST_BYTES = 16
# Numbers at which code goes wrong: signs, the ends of machine words, and small ones that fit.
NUMBERS = (-(1 << 63), -1, 0, 1, 2, 3, 255, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
LETTERS = 'ab/%\x00"é€😀 '
URLS = ("http://127.0.0.1:1", "http://[::1]:2", "http://nobody.example")
# Texts that no node takes for a name or a URL: they would forge lines of its log, or steer who
# reads it.
HOSTILE_TEXTS = (
    "x\n2026-01-01 00:00:00,000 CRITICAL forged",
    "\x1b[2J\x1b[31m",
    "u" * 600,
)
# One field of so many is out of its bounds.
WILD_SHARE = 0.1


def random_message(random: Random, union: Any) -> Any:
    """Returns a message of one of a union's types; each of its fields has the right type.

    Most fields are within their bounds, so that the message is looked at; some are not.
    """
    return _value(random, inspect.type_info(random.choice(union.__args__)))


def random_noise(random: Random) -> bytes:
    """Returns bytes that are most probably no message."""
    return random.randbytes(random.randrange(MAX_NOISE_BYTES))


def damaged(random: Random, payload: bytes) -> bytes:
    """Returns an encoded message with its end cut off, one bit flipped, or more behind it."""
    match random.randrange(3):
        case 0:
            return payload[: random.randrange(len(payload))]
        case 1:
            at = random.randrange(len(payload))
            changed = payload[at] ^ (1 << random.randrange(8))
            return payload[:at] + bytes([changed]) + payload[at + 1 :]
    return payload + b"\x00" + random_noise(random)


def _value(random: Random, kind: inspect.Type) -> Any:
    match kind:
        case inspect.StructType():
            return kind.cls(*(_value(random, field.type) for field in kind.fields))
        case inspect.UnionType():
            return _value(random, random.choice(kind.types))
        case inspect.ListType() | inspect.VarTupleType():  # the same on the wire
            return [_value(random, kind.item_type) for _ in range(random.randrange(MAX_ITEMS))]
        case inspect.DictType():
            return {
                _value(random, kind.key_type): _value(random, kind.value_type)
                for _ in range(random.randrange(MAX_ITEMS))
            }
    return _LEAVES[type(kind)](random, kind)


def _number(random: Random, kind: inspect.IntType) -> int:
    if kind.ge is None or kind.le is None or random.random() < WILD_SHARE:
        return random.choice(NUMBERS)
    return random.choice([one for one in NUMBERS if kind.ge <= one <= kind.le])


def _bounded_text(random: Random, kind: inspect.StrType) -> str:
    if random.random() < WILD_SHARE:
        return random.choice((*HOSTILE_TEXTS, _text(random)))
    if kind.pattern is None:
        return _text(random)
    return random.choice(URLS) if "http" in kind.pattern else f"name{random.randrange(9)}"


def _text(random: Random) -> str:
    return "".join(random.choices(LETTERS, k=random.randrange(MAX_TEXT)))


def _raw(random: Random) -> msgspec.Raw:
    return msgspec.Raw(encode({_text(random): [_text(random), *random.sample(NUMBERS, 2)]}))


_LEAVES: dict[type[inspect.Type], Callable[[Random, Any], Any]] = {
    inspect.IntType: _number,
    inspect.StrType: _bounded_text,
    inspect.BytesType: lambda random, _: random.randbytes(DIGEST_BYTES),
    inspect.BoolType: lambda random, _: bool(random.getrandbits(1)),
    inspect.NoneType: lambda *_: None,
    inspect.RawType: lambda random, _: _raw(random),
}
