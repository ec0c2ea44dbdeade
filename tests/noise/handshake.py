"""A second implementation of the tunnel, made from its description in src/wire/mod.rs alone.

Noise, X25519, AES-GCM, ML-KEM-768 and BLAKE3 are other people's (see requirements.txt); none of them is what
the program uses. Reads one JSON object from the standard input:

    private       hex of our X25519 private key
    peer          hex of the public key of the device to dial
    address       [host, port] of that device
    suite         "AESGCM" or "ChaChaPoly"
    flip_prologue whether one bit of the prologue is changed before the handshake begins

and prints one: `answered`, the number of bytes that came back before the end or the peer's greeting, and where
the handshake was completed `name`, the name in that greeting.
"""

import json
import socket
import struct
import sys

from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from kyber_py.ml_kem import ML_KEM_768
from noise.connection import Keypair, NoiseConnection

SUITES = {"AESGCM": 1, "ChaChaPoly": 2}
SECOND_LEN = 32 + 1088 + 16 + 16
CIPHERTEXT_LEN = 1088
KIND_HELLO = 0x01
PATIENCE_S = 60


def raw(public):
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def keyed(key, *parts):
    hasher = blake3(key=key)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def derive(context, *parts):
    hasher = blake3(derive_key_context=context)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


class Silence(Exception):
    """The other end closed without the bytes that were waited for."""


class Wire:
    """The bytes of a connection, counted."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=PATIENCE_S)
        self.read = 0

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, length):
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            if not piece:
                raise Silence
            self.read += len(piece)
            data += piece
        return data


def hello(has_aes=True):
    return struct.pack("<HHI8x", 1, 1, 1 if has_aes else 0)


class Tunnel:
    """One session, from its first message on, as the end that dials."""

    def __init__(self, order):
        self.private = bytes.fromhex(order["private"])
        own = X25519PrivateKey.from_private_bytes(self.private)
        self.own_id, self.peer_id = raw(own.public_key()), bytes.fromhex(order["peer"])
        shared = own.exchange(X25519PublicKey.from_public_bytes(self.peer_id))
        self.gate_key = derive("kinfold 1 gate key", shared)
        self.pair_secret = derive("kinfold 1 pair secret", shared)
        self.suite = order["suite"]
        self.prologue = b"kinfold handshake 1" + bytes([SUITES[self.suite]]) + self.own_id + self.peer_id
        if order["flip_prologue"]:
            self.prologue = bytes([self.prologue[0] ^ 1]) + self.prologue[1:]
        self.wire = Wire(tuple(order["address"]))
        self.plain = b""

    def handshake(self):
        noise = NoiseConnection.from_name(f"Noise_XKpsk3_25519_{self.suite}_SHA256".encode())
        noise.set_as_initiator()
        noise.set_prologue(self.prologue)
        noise.set_keypair_from_private_bytes(Keypair.STATIC, self.private)
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, self.peer_id)
        # The library wants the key before the handshake; the real one is known before the third message.
        noise.set_psks(psks=[bytes(32)])
        noise.start_handshake()

        encapsulation_key, decapsulation_key = ML_KEM_768.keygen()
        first = bytes(noise.write_message(encapsulation_key))
        self.wire.send(self.tag(first) + first)
        payload = bytes(noise.read_message(self.wire.receive(SECOND_LEN)))
        kem_secret = ML_KEM_768.decaps(decapsulation_key, payload[:CIPHERTEXT_LEN])
        psk = derive("kinfold 1 handshake psk", self.pair_secret, kem_secret)
        noise.noise_protocol.psks[:] = [psk]
        self.wire.send(bytes(noise.write_message(hello())))
        self.noise = noise

    def tag(self, first):
        direction = keyed(self.gate_key, self.own_id, self.peer_id)
        return keyed(direction, bytes([SUITES[self.suite]]), blake3(first).digest())[:16]

    def record(self):
        (length,) = struct.unpack(">H", self.wire.receive(2))
        return bytes(self.noise.decrypt(self.wire.receive(length)))

    def take(self, length):
        while len(self.plain) < length:
            self.plain += self.record()
        taken, self.plain = self.plain[:length], self.plain[length:]
        return taken

    def frame(self):
        length, kind, header_len = struct.unpack("<IBH", self.take(7))
        rest = self.take(length - 3)
        return kind, rest[:header_len], rest[header_len:]


def main():
    tunnel = Tunnel(json.load(sys.stdin))
    try:
        tunnel.handshake()
        kind, _, body = tunnel.frame()
    except Silence:
        print(json.dumps({"answered": tunnel.wire.read}))
        return
    assert kind == KIND_HELLO, f"the first frame is of kind {kind:#x}"
    # A greeting begins with a name: its length in one byte, as names here are short, and its text.
    name = body[1 : 1 + body[0]].decode()
    print(json.dumps({"answered": tunnel.wire.read, "name": name}))


main()
