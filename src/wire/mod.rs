//! Bytes to messages and back: pure, bounded, versioned. This file is the format document.
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
//! | 0x10 | Records | both | what I hold at some paths, in the order of my sequences |
//! | 0x11 | Ack | both | your records up to here are durable here; and where I stand |
//! | 0x20 | WantRecipe | taker | name the pages of this content's recipe |
//! | 0x21 | Recipe | giver | the pages |
//! | 0x22 | WantPages | taker | send these pages |
//! | 0x23 | Page | giver | one page |
//! | 0x24 | Want | taker | send these chunks |
//! | 0x25 | Chunk | giver | one chunk; the body is its bytes |
//! | 0x26 | Missing | giver | this item of your request cannot be had (any more) |
//! | 0x30 | Ping | both | are you there? |
//! | 0x31 | Pong | both | yes |
//! | 0x3f | Goodbye | both, last | I close; a connection that ends without it was cut |
//!
//! What a peer says is checked here, where it becomes a model type: paths, versions, lengths and
//! counts are within their bounds in every message that [`Message::decode`] returns.

pub mod message;

pub use message::Message;
