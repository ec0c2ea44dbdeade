//! Bytes to messages and back: pure, bounded, versioned. This file is the format document: who reads it can write
//! another implementation, as `tests/noise/handshake.py` is one.
//!
//! # The handshake
//!
//! Over TCP, three messages of fixed length: `Noise_XKpsk3_25519_AESGCM_SHA256` or
//! `Noise_XKpsk3_25519_ChaChaPoly_SHA256` (The Noise Protocol Framework, revision 34), the suite chosen by the dialing
//! device and never written down. Integers are little-endian, `|` puts bytes one after the other, a device id stands
//! for the 32 bytes of an X25519 public key.
//!
//! | name | is |
//! |---|---|
//! | `S` | X25519 of the two long-term keys |
//! | `gate` | BLAKE3 `derive_key("kinfold 1 gate key", S)` |
//! | `pair` | BLAKE3 `derive_key("kinfold 1 pair secret", S)` |
//! | `suite` | one byte: 1 for AES-GCM, 2 for ChaChaPoly |
//! | `tag` | first 16 bytes of BLAKE3 `keyed_hash(keyed_hash(gate, dialer id \| listener id), suite \| hash(noise message))` |
//! | prologue | `"kinfold handshake 1" \| suite \| dialer id \| listener id` |
//! | `psk` | BLAKE3 `derive_key("kinfold 1 handshake psk", pair \| ML-KEM secret)`, set before the third message |
//! | hello | `u16` lowest and `u16` highest protocol version, `u32` flags (bit 0: has AES instructions), 8 zeros |
//!
//! | message | bytes | is |
//! |---|---|---|
//! | dialer, first | 1248 | `tag \|` Noise message with an ML-KEM-768 encapsulation key (1184) as its payload |
//! | listener | 1152 | Noise message with ML-KEM ciphertext (1088) and hello (16) as its payload |
//! | dialer, last | 80 | Noise message with hello (16) as its payload |
//!
//! The version is the highest that both speak. A listener sends nothing before it has found the tag's device in its
//! trust list, and nothing to a tag that it has answered before.
//!
//! # The messages
//!
//! Inside the tunnel runs a stream of frames. A frame is `u32 length | u8 kind | u16 header length |
//! header | body`, little-endian; the length counts all that follows it. The header is postcard
//! (its stable wire format) of the type in [`message`] that the kind names; the body is raw bytes,
//! and only chunks and recipe pages have one. A kind that is not known is skipped, so that later versions may add
//! kinds; the fields of a kind never change, a changed message gets a new kind.
//!
//! | kind | name | from | meaning |
//! |---|---|---|---|
//! | 0x01 | Hello | both, first | who I am, and the folders that we share |
//! | 0x02 | Folder | both | one folder was shared, or its members changed |
//! | 0x03 | Unshare | both | a folder is no longer shared with you |
//! | 0x04 | Trust | both | devices that were revoked, or are trusted again |
//! | 0x05 | NextId | both | the id that I am going to have, with a proof; or that I stay who I am |
//! | 0x06 | NextNoted | both | that id of yours is noted here, durably |
//! | 0x10 | Records | both | what I hold at some paths, in the order of my sequences |
//! | 0x11 | Ack | both | your records up to here are durable here; and where I stand |
//! | 0x20 | WantRecipe | taker | name the pages of this content's recipe |
//! | 0x21 | Recipe | giver | the pages |
//! | 0x22 | WantPages | taker | send these pages |
//! | 0x23 | Page | giver | one page |
//! | 0x24 | Want | taker | send these chunks |
//! | 0x25 | Chunk | giver | one chunk; the body is its bytes |
//! | 0x26 | Missing | giver | this item of your request cannot be had (any more) |
//! | 0x27 | WantHistory | taker | which former versions of a path, and of all below it, do you keep? |
//! | 0x28 | History | giver | a page of them, in the order of paths |
//! | 0x30 | Ping | both | are you there? |
//! | 0x31 | Pong | both | yes |
//! | 0x3f | Goodbye | both, last | I close; a connection that ends without it was cut |
//!
//! **What a device leaves out.** In Records a path may have the body *withdrawn* (number 4), with a version of no author,
//! no recipe and no content, and one flag. Set, it says that the speaker's ignore rules leave the path out: it neither
//! holds nor wants anything there; nothing was deleted, and the hearer keeps what it has. That counts until the speaker
//! says something else of the path, or until the hearer announces it anew: whoever leaves out what it is told of says so
//! again, each time. Not set, it takes back all that the speaker said of the path: nothing is there, and it has seen no
//! change, so that it wants what the hearer has. A body of another number has a version of one author at least. The tree
//! in an Ack is the sum of the hashes of the live records that the speaker holds, but for those at paths that the hearer
//! has withdrawn: so both name the sum of what is held by both.
//!
//! **History.** A Want may also name a content that the giver keeps as a former version of that path. Former versions
//! have no recipe, and their chunks are whatever the taker cuts: runs of any lengths within the bounds of a Want, numbered
//! as it likes. That all of them together are the content that was named shows when the taker cuts them as a file of that
//! size is cut. Each answer to a WantHistory is one page; the next is asked for with the path and the `until` of the last
//! version in it. To a folder that it may not read a device hears no answer.
//!
//! **A device that changes its key** says its next id in NextId, as long as it has not changed; the body is empty, the
//! header an option of two times 32 bytes, id and proof. The proof is BLAKE3
//! `keyed_hash(k, id of the speaker | its next id | id of the hearer)`, where `k` is
//! `derive_key("kinfold 1 next id", X25519 of the next key and the hearer's)`: only who has the next key can make it, and
//! it is worth nothing to anybody else. A hearer that takes the id lets the device in by both, answers NextNoted, and
//! from the first handshake with the next id on knows the device by that alone. NextId with none takes the former back.
//!
//! # The pairing
//!
//! While a person has a window open, the device listens on TCP port 25464 too, and says so by DNS-SD as
//! `_kinfold-pair._tcp`, the instance named after the number of the code and eight random digits. Whoever joins speaks
//! first. `kind` is one byte: 0 for a code, 1 for a link.
//!
//! | message | bytes | is |
//! |---|---|---|
//! | joining, first | 50 | `"kinfold pair 1" \| 0 \| 0 \| kind \| SPAKE2 message of side A` |
//! | inviting | 33 | SPAKE2 message of side B |
//! | joining | 1232 | first Noise message, an ML-KEM-768 encapsulation key (1184) as its payload |
//! | inviting | 1 or 1185 | 0: the code was wrong; 1: it is burned; 2, followed by the second Noise message, ML-KEM ciphertext (1088) as its payload |
//! | joining | 64 | third Noise message |
//!
//! SPAKE2 is that of the crate `spake2` over Ed25519 with the identities `"kinfold joins"` and `"kinfold invites"`; its
//! password is `kind` and the code in lower case with hyphens, or the 16 bytes of the link's secret. Noise is
//! `Noise_XXpsk0+psk3_25519_ChaChaPoly_SHA256` with the long-term keys; its prologue is the first two messages; `psk0` is
//! BLAKE3 `derive_key("kinfold 1 pairing psk", SPAKE2 key)` and `psk3` BLAKE3 `derive_key("kinfold 1 pairing kem", ML-KEM
//! secret)`. Then each message is `u16 length` (big-endian) and a Noise message with the postcard of
//! [`pairing::PairingMessage`]: both introduce themselves, the inviting side first; both say whether their person agrees;
//! where both do, each writes it down and says that it did.
//!
//! # The renewal of keys
//!
//! When the keys of a connection are 120 seconds old the dialing device begins a handshake as above inside the tunnel.
//! Its three messages are the bodies of frames of the kinds 0xf0, 0xf1 and 0xf2, with empty headers; 0xf3, with an empty
//! body, is the listener's word that it is over. After 0xf2 the dialer seals and the listener opens with the new keys,
//! after 0xf3 the listener seals and the dialer opens with them; each of the two is the last frame of its record, and
//! records count from zero again. Keys older than 180 seconds are refused. (`engine::session::renewal`.)
//!
//! What a peer says is checked here, where it becomes a model type: paths, versions, lengths and
//! counts are within their bounds in every message that [`Message::decode`] returns.

pub mod message;
pub mod pairing;
pub mod past;

pub use message::Message;
