//! Every bound of the program in one place, with the relations between them checked at compile time.
//!
//! A number that a peer, a disk or a person can push up has its ceiling here, and what lies above it
//! is refused before anything is allocated for it.

use std::time::Duration;

/// Longest name of one path component, in bytes (`NAME_MAX` of Linux file systems).
pub const NAME_LEN_MAX: usize = 255;
/// Longest path inside a folder, in bytes (`PATH_MAX` less the closing NUL).
pub const PATH_LEN_MAX: usize = 4095;
/// Deepest nesting of a path inside a folder, in components.
pub const PATH_DEPTH_MAX: usize = 512;
/// Longest target of a symbolic link, in bytes.
pub const SYMLINK_LEN_MAX: usize = 4095;

/// Most authors in one version vector.
pub const VERSION_AUTHORS_MAX: usize = 256;
/// Authors from which on a version is crowded: those that write no more are taken out of it as soon as every
/// member of the folder holds it.
pub const VERSION_AUTHORS_CROWD: usize = 128;
/// Highest value of one counter of a version vector; leaves room so that counting never overflows.
pub const VERSION_COUNTER_MAX: u64 = 1 << 62;

/// Time for which a deletion is remembered at least, although every member of the folder knows of it: a device
/// that comes back from a backup younger than this does not bring back what was deleted.
pub const TOMBSTONE_AGE: Duration = Duration::from_secs(365 * 86_400);

/// Longest chunk of any tier, in bytes.
pub const CHUNK_LEN_MAX: usize = 4 << 20;
/// Most chunks in one recipe page.
pub const PAGE_CHUNKS_MAX: usize = 512;
/// Fewest chunks in a recipe page, but for the last.
pub const PAGE_CHUNKS_MIN: usize = 16;
/// Most pages in one recipe.
pub const RECIPE_PAGES_MAX: usize = 1 << 16;
/// Most chunks that a record carries itself; longer recipes are asked for page by page.
pub const INLINE_CHUNKS_MAX: usize = 16;
/// Largest file content that may ride along with its record, in bytes.
pub const INLINE_CONTENT_MAX: usize = 16 << 10;

/// Longest frame body on the wire, in bytes.
pub const FRAME_LEN_MAX: usize = CHUNK_LEN_MAX + (64 << 10);
/// Most records in one `Records` message.
pub const RECORDS_PER_MESSAGE_MAX: usize = 1024;
/// Encoded size at which a `Records` message is sent off, in bytes.
pub const RECORDS_MESSAGE_LEN_TARGET: usize = 512 << 10;
/// Most items in one request.
pub const WANT_ITEMS_MAX: usize = 1024;
/// Bytes of file content asked of one peer and not yet answered.
pub const WANT_BYTES_IN_FLIGHT_MAX: u64 = 16 << 20;
/// Requests open at one peer at a time.
pub const WANTS_IN_FLIGHT_MAX: usize = 64;
/// Files that are being fetched at a time in one folder.
pub const FETCHES_MAX: usize = 4096;

/// Most former versions in one answer about history.
pub const HISTORY_PAGE_MAX: usize = 256;
/// Most former versions that are heard of one peer for one question.
pub const HISTORY_VERSIONS_MAX: usize = 1 << 16;
/// Time within which a peer answers about its history.
pub const HISTORY_PATIENCE: Duration = Duration::from_secs(10);

/// Most devices of which it is remembered that they were revoked.
pub const REVOCATIONS_MAX: usize = 256;
/// Most addresses at which a device that is being paired says it listens.
pub const PAIRING_ADDRESSES_MAX: usize = 16;
/// Time for which a pairing window is open.
pub const PAIRING_WINDOW: Duration = Duration::from_secs(600);
/// Wrong guesses that burn the code of a pairing window.
pub const PAIRING_GUESSES_MAX: u32 = 3;
/// Longest message of a pairing, in bytes of plain text.
pub const PAIRING_MESSAGE_MAX: usize = 4096;
/// Connections to a pairing window at a time that have not proven the code.
pub const PAIRING_STRANGERS_MAX: usize = 16;

/// Most folders that one peer may speak of.
pub const FOLDERS_MAX: usize = 1024;
/// Most members of one folder.
pub const MEMBERS_MAX: usize = 256;
/// Longest name of a device or folder, in bytes.
pub const LABEL_LEN_MAX: usize = 128;
/// Most devices in the trust list; one that is about to change its key counts as two.
pub const DEVICES_MAX: usize = 1024;
/// Most ids that one device is remembered to have had.
pub const FORMER_IDS_MAX: usize = 16;
/// Time within which what one device says of its next id is taken over once.
pub const NEXT_ID_PAUSE: Duration = Duration::from_secs(60);

/// Longest payload of one Noise message, in bytes (Noise specification, revision 34, section 3,
/// less the 16 bytes of the tag).
pub const NOISE_PAYLOAD_MAX: usize = 65_519;
/// Longest Noise message, in bytes.
pub const NOISE_MESSAGE_MAX: usize = 65_535;
/// Longest time a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time that have not shown the tag of a trusted device.
pub const STRANGERS_MAX: usize = 256;
/// Of these, from one address.
pub const STRANGERS_PER_ADDRESS_MAX: usize = 64;
/// Handshakes under way at a time with one trusted device.
pub const HANDSHAKES_PER_DEVICE_MAX: usize = 4;
/// First messages remembered to refuse their replay.
pub const REPLAY_CACHE_MAX: usize = 65_536;
/// Silence after which a ping is sent.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Silence after which a connection is given up.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(60);

/// Times a file that changes while it is read is tried again before it waits for the next event.
pub const HASH_RETRIES_MAX: u32 = 5;
/// Problems kept for one folder; the number of all is counted beyond that.
pub const PROBLEMS_MAX: usize = 1000;
/// Changes of one peer that wait in an index, to be fetched, for a person or for a right. Beyond it they are not
/// acknowledged, so that a peer that keeps to the protocol sends no more until there are fewer.
pub const REMOTES_WAITING: u64 = 1 << 20;
/// The same for a peer that does not: what makes them more is not taken, and the session ends.
pub const REMOTES_MAX: u64 = 2 * REMOTES_WAITING;
/// Time within which a peer may only once claim to remember changes of ours that there were not.
pub const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// Lives of an index that are remembered. A peer that comes back after more of them is told everything once more.
pub const LIVES_MAX: usize = 1024;
/// Names of one file (hard links) of which it is known that they are one.
pub const LINKS_MAX: usize = 32;
/// Longest `.kinfoldignore` that is read, in bytes.
pub const IGNORE_FILE_LEN_MAX: u64 = 1 << 20;
/// Longest text that is merged, in bytes.
pub const MERGE_LEN_MAX: usize = 1 << 20;
/// Most lines of one; comparing two texts takes time with their product.
pub const MERGE_LINES_MAX: usize = 10_000;
/// Longest configuration file that is read, in bytes.
pub const CONFIG_LEN_MAX: u64 = 4 << 20;
/// Lines of the log kept in memory for `kinfold log`.
pub const LOG_LINES_MAX: usize = 4096;
/// Files on their way that are named to people.
pub const MOVING_SHOWN_MAX: usize = 16;
/// Events kept in memory for `kinfold events`.
pub const EVENTS_MAX: usize = 4096;
/// Longest line of the log kept in memory, in bytes; the rest is cut off.
pub const LOG_LINE_LEN_MAX: usize = 4096;
/// Longest answer of the control API that a client reads, in bytes.
pub const CONTROL_ANSWER_LEN_MAX: usize = 64 << 20;

const _: () = assert!(FRAME_LEN_MAX > CHUNK_LEN_MAX + 1024);
const _: () = assert!(RECORDS_MESSAGE_LEN_TARGET * 2 < FRAME_LEN_MAX);
const _: () = assert!(INLINE_CHUNKS_MAX <= PAGE_CHUNKS_MAX);
const _: () = assert!(VERSION_AUTHORS_CROWD * 2 <= VERSION_AUTHORS_MAX);
const _: () = assert!(PAGE_CHUNKS_MIN < PAGE_CHUNKS_MAX);
const _: () = assert!(NOISE_PAYLOAD_MAX + 16 == NOISE_MESSAGE_MAX);
const _: () = assert!(WANT_BYTES_IN_FLIGHT_MAX as usize >= 2 * CHUNK_LEN_MAX);
const _: () = assert!(HISTORY_PAGE_MAX * (PATH_LEN_MAX + SYMLINK_LEN_MAX + 128) < FRAME_LEN_MAX);
const _: () = assert!(PATH_DEPTH_MAX * 2 <= PATH_LEN_MAX + 1);
