//! Kinfold keeps folders identical across a person's own devices, over their own network, and answers
//! nobody else.
//!
//! This page is the map. `ARCHITECTURE.md` tells the reasons, [`wire`] is the format on the network,
//! `src/store/schema.sql` the format on the disk.
//!
//! # Layers
//!
//! The engine decides, the shells do, the daemon connects. Pure layers are functions of their inputs:
//! no clock, no randomness of their own, no file, socket or thread. So the state machine that runs in
//! the daemon also runs in the simulator, thousands of times over, from a seed. Shells never call each
//! other, but for the writing of small files in [`disk`].
//!
//! | layer | kind | may import | what it is |
//! |---|---|---|---|
//! | `model` | pure | nothing | values and their invariants; the words of all other layers |
//! | `wire` | pure | model | bytes to messages and back, with every bound checked |
//! | `engine` | pure | model, wire | state machines and plans: what to do, and when |
//! | `disk` | shell | model, engine | the folder on disk: scans, staging, commits, history |
//! | `store` | shell | model, engine | the index of a folder, in SQLite |
//! | `net` | shell | model, wire, engine | sockets: who is let in, and frames to and from them |
//! | `keys` | shell | model, disk | the identity of this device |
//! | `config` | shell | model, disk | what a person decided, in a file of theirs |
//! | `control` | shell | model | what local programs ask of a running daemon |
//! | `daemon` | shell | model, wire, engine, disk, store, net, keys, config, control | what connects all of these and runs |
//! | `cli` | shell | model, keys, config, control, daemon | the command line; of the daemon it knows only how to start it |
//!
//! `tests/tidy.rs` holds this table and fails where the code departs from it.
//!
//! # The way of a change
//!
//! 1. Somebody saves a file. The watcher gives a hint, never the truth; [`engine::debounce`] waits
//!    until the path rests.
//! 2. The path is looked at, read in one pass, cut into chunks and hashed ([`engine::chunker`]).
//! 3. [`engine::folder`] makes a record with a new version. The index commits it: durable here.
//! 4. The record is announced. At each peer [`engine::reconcile`] gives the verdict.
//! 5. What must be taken is put together from what lies there already ([`engine::assemble`]); the rest
//!    is asked for, arrives, is hashed, and so becomes an [`engine::chunk::VerifiedChunk`].
//! 6. Complete and checked, it takes its place; what was there before goes to history.
//! 7. The index commits: durable there. That device now announces it too.
//!
//! # Invariants
//!
//! Each has tests that go red when it breaks; `ARCHITECTURE.md` names them.
//!
//! 1. **The index is never ahead of the disk.** Data is durable first, then the record that speaks of
//!    it. A crash costs work, never data.
//! 2. **Bytes from the network reach the disk only as [`engine::chunk::VerifiedChunk`]**, paths only as
//!    [`model::path::RelPath`] through a held directory handle.
//! 3. **Nothing is overwritten or removed unless it was just seen to be what the plan expected**, and
//!    then it goes to history first, as far as history is on. A conflict keeps both. An edit beats a
//!    deletion. "Could not read", "unmounted" and "ignored" are never "deleted".
//! 4. **Every queue, frame, retry, name and depth has a bound** in [`model::limits`]. Nothing is
//!    allocated on a peer's word.
//! 5. **The engine is a function of its inputs.** A seed reproduces every bug.
//! 6. **No byte to a stranger; no chunk, name or hash to a peer beyond the folders it may read.**
//! 7. **Convergence.** When all devices are connected and nobody edits, all folders become identical,
//!    whatever happened before. "In sync" is said only where tree hashes are equal.
//! 8. **A root that vanished, lost its marker or was swapped stops the folder**; it is never a mass
//!    deletion.
//! 9. **Fail closed.** A check of a key or a policy that cannot be done stops the daemon with a clear
//!    message.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod disk;
pub mod engine;
pub mod keys;
pub mod model;
pub mod net;
pub mod store;
pub mod wire;
