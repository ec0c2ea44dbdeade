//! Sessions: the handshake, and what runs inside it.
