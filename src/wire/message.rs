//! The messages, and their encoding.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::id::{
    AuthorId, ChunkId, ContentId, DeviceId, DeviceTag, FolderId, Incarnation, Life, PageId, Sequence,
};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::recipe::{ChunkRef, PageRef, Recipe};
use crate::model::record::{Body, FileBody, Record};
use crate::model::revocation::Revocation;
use crate::model::rights::{Member, Members, Right};
use crate::model::version::VersionVector;
use crate::wire::past;
use crate::wire::past::{History, WantHistory};

/// What one device says to another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// Who I am, and the folders that we share.
    Hello(Hello),
    /// One folder was shared, or its members changed.
    Folder(FolderHello),
    /// A folder is no longer shared with you.
    Unshare(FolderId),
    /// What is said of devices that were lost or stolen.
    Trust(Vec<Revocation>),
    /// The id that I am going to have, or that I stay who I am.
    NextId(Option<NextId>),
    /// That id of yours is noted here, durably.
    NextNoted(DeviceId),
    /// What I hold at some paths.
    Records(Records),
    /// Your records up to here are durable here.
    Ack(Ack),
    /// Name the pages of this content's recipe.
    WantRecipe(WantRecipe),
    /// The pages of a recipe.
    Recipe {
        /// The request that this answers.
        request: u64,
        /// The root of the recipe.
        pages: Vec<PageRef>,
    },
    /// Send these pages.
    WantPages {
        /// Which content, and where it lies.
        want: WantRecipe,
        /// Indices of the pages.
        pages: Vec<u32>,
    },
    /// One page.
    Page {
        /// The request that this answers.
        request: u64,
        /// Index of the page.
        page: u32,
        /// Its chunks.
        chunks: Vec<ChunkRef>,
    },
    /// Send these chunks.
    Want(Want),
    /// One chunk; its bytes are the frame's body.
    Chunk(ChunkHeader),
    /// An item of a request cannot be had.
    Missing {
        /// The request that this answers.
        request: u64,
        /// Index of the item.
        item: u16,
    },
    /// Which former versions do you keep?
    WantHistory(WantHistory),
    /// A page of them.
    History(History),
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// I close.
    Goodbye(Goodbye),
}

/// The first message on a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hello {
    /// The name that the device gives itself; shown, never trusted.
    pub name: String,
    /// The folders that the two share.
    pub folders: Vec<FolderHello>,
}

/// The id that the speaker is going to have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NextId {
    /// Which.
    pub id: DeviceId,
    /// That the speaker has the key to it.
    pub proof: [u8; 32],
}

/// What one side says of a folder that both share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FolderHello {
    /// Which folder.
    pub folder: FolderId,
    /// Its name for people.
    pub name: String,
    /// Whether the speaker holds the folder (else it has only been offered it).
    pub holds: bool,
    /// The incarnation of the speaker's index.
    pub incarnation: Incarnation,
    /// The life that the speaker's index is in.
    pub life: Life,
    /// The speaker's last sequence.
    pub last: Sequence,
    /// Which incarnation of the hearer's index the speaker knows, up to where, and in which life it heard that.
    pub received: Option<(Incarnation, Sequence, Life)>,
    /// The members, as the speaker knows them.
    pub members: Members,
}

/// A batch of records.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Records {
    /// Which folder.
    pub folder: FolderId,
    /// All changes of the speaker after this one …
    pub after: Sequence,
    /// … and up to this one are in the batch, the latest of each path.
    pub through: Sequence,
    /// Whether more is under way already.
    pub more: bool,
    /// The records.
    pub records: Vec<SentRecord>,
}

/// A record with what travels along.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SentRecord {
    /// The record.
    pub record: Record,
    /// The recipe of a file, where it is short.
    pub recipe: Option<Recipe>,
    /// The bytes of a small file, where the speaker thinks that the hearer lacks them.
    pub content: Option<Vec<u8>>,
    /// Of a record that is withdrawn ([`Record::is_withdrawn`]): whether the speaker's rules leave the path out. Else it
    /// has nothing there and knows of nothing, so that what the hearer has there is news to it. Of others: false.
    pub left_out: bool,
}

/// How far the speaker has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ack {
    /// Which folder.
    pub folder: FolderId,
    /// The hearer's changes up to here are durable at the speaker.
    pub received: Sequence,
    /// The speaker's last sequence.
    pub last: Sequence,
    /// The hash of the speaker's tree, without what the hearer has said that it leaves out.
    pub tree: [u8; 32],
}

/// Which content of which file a request is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantRecipe {
    /// Names the request in its answers.
    pub request: u64,
    /// Which folder.
    pub folder: FolderId,
    /// Where the giver said that it holds the content.
    pub path: RelPath,
    /// Which content.
    pub content: ContentId,
}

/// A request for chunks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Want {
    /// Names the request in its answers.
    pub request: u64,
    /// Which folder.
    pub folder: FolderId,
    /// Files and their chunks.
    pub items: Vec<WantItem>,
}

/// The chunks that are wanted of one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantItem {
    /// Where the giver said that it holds the content.
    pub path: RelPath,
    /// Which content.
    pub content: ContentId,
    /// Which chunks.
    pub runs: Vec<Run>,
}

/// Chunks of a file that follow one another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Run {
    /// Index of the first.
    pub first: u32,
    /// Its offset in the file, in bytes.
    pub offset: u64,
    /// The lengths of all, in bytes.
    pub lens: Vec<u32>,
}

impl Run {
    /// Returns the length of all chunks together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.lens.iter().map(|len| u64::from(*len)).sum()
    }
}

impl Want {
    /// Returns the bytes that all wanted chunks have together.
    pub fn bytes(&self) -> u64 {
        self.items.iter().flat_map(|item| &item.runs).map(Run::bytes).sum()
    }
}

/// Says which chunk a frame's body is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkHeader {
    /// The request that this answers.
    pub request: u64,
    /// Index of the item in the request.
    pub item: u16,
    /// Index of the chunk in the file.
    pub chunk: u32,
}

/// Why a connection is closed: coarse, for the details are nobody else's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Goodbye {
    /// The device is stopping.
    Stopping,
    /// Another connection between the two has taken over.
    Replaced,
    /// The hearer broke the protocol.
    Misbehaved,
    /// The speaker cannot go on.
    Failed,
}

/// What is wrong with a frame: the peer's fault, always.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The header is not what its kind says.
    #[error("a frame of kind {kind:#04x} cannot be decoded")]
    Malformed {
        /// The frame's kind.
        kind: u8,
    },
    /// A field has a value that cannot be.
    #[error("a frame has an impossible {0}")]
    Impossible(&'static str),
}

mod kind {
    pub const HELLO: u8 = 0x01;
    pub const FOLDER: u8 = 0x02;
    pub const UNSHARE: u8 = 0x03;
    pub const TRUST: u8 = 0x04;
    pub const NEXT_ID: u8 = 0x05;
    pub const NEXT_NOTED: u8 = 0x06;
    pub const RECORDS: u8 = 0x10;
    pub const ACK: u8 = 0x11;
    pub const WANT_RECIPE: u8 = 0x20;
    pub const RECIPE: u8 = 0x21;
    pub const WANT_PAGES: u8 = 0x22;
    pub const PAGE: u8 = 0x23;
    pub const WANT: u8 = 0x24;
    pub const CHUNK: u8 = 0x25;
    pub const MISSING: u8 = 0x26;
    pub const WANT_HISTORY: u8 = 0x27;
    pub const HISTORY: u8 = 0x28;
    pub const PING: u8 = 0x30;
    pub const PONG: u8 = 0x31;
    pub const GOODBYE: u8 = 0x3f;
}

impl Message {
    /// Returns the frame's kind.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Folder(_) => kind::FOLDER,
            Self::Unshare(_) => kind::UNSHARE,
            Self::Trust(_) => kind::TRUST,
            Self::NextId(_) => kind::NEXT_ID,
            Self::NextNoted(_) => kind::NEXT_NOTED,
            Self::Records(_) => kind::RECORDS,
            Self::Ack(_) => kind::ACK,
            Self::WantRecipe(_) => kind::WANT_RECIPE,
            Self::Recipe { .. } => kind::RECIPE,
            Self::WantPages { .. } => kind::WANT_PAGES,
            Self::Page { .. } => kind::PAGE,
            Self::Want(_) => kind::WANT,
            Self::Chunk(_) => kind::CHUNK,
            Self::Missing { .. } => kind::MISSING,
            Self::WantHistory(_) => kind::WANT_HISTORY,
            Self::History(_) => kind::HISTORY,
            Self::Ping => kind::PING,
            Self::Pong => kind::PONG,
            Self::Goodbye(_) => kind::GOODBYE,
        }
    }

    /// Encodes the message into the frame's header and body.
    ///
    /// Headers may pass 64 KiB where a message lists many things; such lists go into the body, and the
    /// header is empty. A chunk's body is not part of the message and is written by the caller.
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Hello(hello) => (Vec::new(), to_bytes(&raw::Hello::from(hello))),
            Self::Folder(folder) => (Vec::new(), to_bytes(&raw::FolderHello::from(folder))),
            Self::Unshare(folder) => (to_bytes(&folder.0), Vec::new()),
            Self::Trust(said) => {
                let said: Vec<_> = said.iter().map(|s| (s.device.as_bytes(), s.stamp, s.is_lifted)).collect();
                (Vec::new(), to_bytes(&said))
            }
            Self::NextId(next) => (to_bytes(&next.map(|next| (*next.id.as_bytes(), next.proof))), Vec::new()),
            Self::NextNoted(next) => (to_bytes(next.as_bytes()), Vec::new()),
            Self::Records(records) => (Vec::new(), to_bytes(&raw::Records::from(records))),
            Self::Ack(ack) => (to_bytes(&(ack.folder.0, ack.received.0, ack.last.0, ack.tree)), Vec::new()),
            Self::WantRecipe(want) => (to_bytes(&raw::WantRecipe::from(want)), Vec::new()),
            Self::Recipe { request, pages } => {
                let pages: Vec<_> = pages.iter().map(|p| (p.id.0, p.chunks, p.bytes)).collect();
                (to_bytes(request), to_bytes(&pages))
            }
            Self::WantPages { want, pages } => (to_bytes(&raw::WantRecipe::from(want)), to_bytes(pages)),
            Self::Page { request, page, chunks } => (to_bytes(&(request, page)), to_bytes(&raw::chunks(chunks))),
            Self::Want(want) => (Vec::new(), to_bytes(&raw::Want::from(want))),
            Self::Chunk(chunk) => (to_bytes(&(chunk.request, chunk.item, chunk.chunk)), Vec::new()),
            Self::Missing { request, item } => (to_bytes(&(request, item)), Vec::new()),
            Self::WantHistory(want) => (to_bytes(&past::RawWantHistory::from(want)), Vec::new()),
            Self::History(history) => {
                let versions: Vec<_> = history.versions.iter().map(past::RawFormer::from).collect();
                (to_bytes(&(history.request, history.more)), to_bytes(&versions))
            }
            Self::Ping | Self::Pong => (Vec::new(), Vec::new()),
            Self::Goodbye(reason) => (vec![*reason as u8], Vec::new()),
        }
    }

    /// Decodes a frame; `None` where its kind is not known. The body of a chunk is left to the caller.
    pub fn decode(kind: u8, header: &[u8], body: &[u8]) -> Result<Option<Self>, DecodeError> {
        let decoder = Decoder { kind, header, body };
        let message = match kind {
            kind::HELLO => Self::Hello(decoder.body::<raw::Hello>()?.check()?),
            kind::FOLDER => Self::Folder(decoder.body::<raw::FolderHello>()?.check()?),
            kind::UNSHARE => Self::Unshare(FolderId(decoder.header()?)),
            kind::TRUST => {
                let said: Vec<([u8; 32], u64, bool)> = decoder.body()?;
                bounded(said.len(), limits::REVOCATIONS_MAX, "number of revocations")?;
                if said.iter().any(|(_, stamp, _)| *stamp > limits::VERSION_COUNTER_MAX) {
                    return Err(DecodeError::Impossible("stamp"));
                }
                let said = said.into_iter().map(|(device, stamp, is_lifted)| Revocation {
                    device: DeviceId::from_public_key(device),
                    stamp,
                    is_lifted,
                });
                Self::Trust(said.collect())
            }
            kind::NEXT_ID => {
                let next: Option<([u8; 32], [u8; 32])> = decoder.header()?;
                Self::NextId(next.map(|(id, proof)| NextId { id: DeviceId::from_public_key(id), proof }))
            }
            kind::NEXT_NOTED => Self::NextNoted(DeviceId::from_public_key(decoder.header()?)),
            kind::RECORDS => Self::Records(decoder.body::<raw::Records>()?.check()?),
            kind::ACK => {
                let (folder, received, last, tree) = decoder.header()?;
                Self::Ack(Ack { folder: FolderId(folder), received: sequence(received)?, last: sequence(last)?, tree })
            }
            kind::WANT_RECIPE => Self::WantRecipe(decoder.header::<raw::WantRecipe>()?.check()?),
            kind::RECIPE => {
                let pages: Vec<([u8; 32], u16, u64)> = decoder.body()?;
                bounded(pages.len(), limits::RECIPE_PAGES_MAX, "number of pages")?;
                let pages = pages.into_iter().map(|(id, chunks, bytes)| PageRef::parse(PageId(id), chunks, bytes));
                let pages: Result<_, _> = pages.collect();
                Self::Recipe { request: decoder.header()?, pages: pages.map_err(|_| DecodeError::Impossible("page"))? }
            }
            kind::WANT_PAGES => {
                let pages: Vec<u32> = decoder.body()?;
                bounded(pages.len(), limits::WANT_ITEMS_MAX, "number of pages")?;
                Self::WantPages { want: decoder.header::<raw::WantRecipe>()?.check()?, pages }
            }
            kind::PAGE => {
                let (request, page) = decoder.header()?;
                let chunks: Vec<raw::Chunk> = decoder.body()?;
                bounded(chunks.len(), limits::PAGE_CHUNKS_MAX, "number of chunks")?;
                Self::Page { request, page, chunks: raw::recipe(chunks)?.chunks().to_vec() }
            }
            kind::WANT => Self::Want(decoder.body::<raw::Want>()?.check()?),
            kind::CHUNK => {
                let (request, item, chunk) = decoder.header()?;
                Self::Chunk(ChunkHeader { request, item, chunk })
            }
            kind::MISSING => {
                let (request, item) = decoder.header()?;
                Self::Missing { request, item }
            }
            kind::WANT_HISTORY => Self::WantHistory(decoder.header::<past::RawWantHistory>()?.check()?),
            kind::HISTORY => {
                let (request, more) = decoder.header()?;
                Self::History(History { request, versions: past::check_page(decoder.body()?)?, more })
            }
            kind::PING => Self::Ping,
            kind::PONG => Self::Pong,
            kind::GOODBYE => Self::Goodbye(match decoder.header::<u8>()? {
                0 => Goodbye::Stopping,
                1 => Goodbye::Replaced,
                2 => Goodbye::Misbehaved,
                _ => Goodbye::Failed,
            }),
            _ => return Ok(None),
        };
        Ok(Some(message))
    }
}

struct Decoder<'a> {
    kind: u8,
    header: &'a [u8],
    body: &'a [u8],
}

impl Decoder<'_> {
    fn header<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        whole(self.kind, self.header)
    }

    fn body<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        whole(self.kind, self.body)
    }
}

/// Decodes all of the bytes; left-over ones are an error.
fn whole<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Malformed { kind }),
    }
}

fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data of known length always encodes")
}

pub(super) fn bounded(len: usize, max: usize, what: &'static str) -> Result<(), DecodeError> {
    if len > max { Err(DecodeError::Impossible(what)) } else { Ok(()) }
}

fn sequence(n: u64) -> Result<Sequence, DecodeError> {
    if n > limits::VERSION_COUNTER_MAX { Err(DecodeError::Impossible("sequence")) } else { Ok(Sequence(n)) }
}

pub(super) fn path(bytes: &[u8]) -> Result<RelPath, DecodeError> {
    RelPath::parse(bytes).map_err(|_| DecodeError::Impossible("path"))
}

fn label(text: String) -> Result<String, DecodeError> {
    bounded(text.len(), limits::LABEL_LEN_MAX, "name")?;
    Ok(text)
}

/// What goes over the wire, field by field.
pub(super) mod raw {
    use serde::{Deserialize, Serialize};

    use super::{
        AuthorId, Body, ChunkId, ChunkRef, ContentId, DecodeError, DeviceId, DeviceTag, FileBody, FolderId,
        Incarnation, Life, Member, Members, Recipe, Record, Right, Run, VersionVector, WantItem, bounded, label,
        limits, path, sequence,
    };

    /// First index, offset, lengths.
    type RawRun = (u32, u64, Vec<u32>);
    /// Path, content, runs.
    type RawItem = (Vec<u8>, [u8; 32], Vec<RawRun>);
    pub type Chunk = ([u8; 32], u32);
    type Line = ([u8; 32], u8, u64);

    #[derive(Serialize, Deserialize)]
    pub struct Hello {
        name: String,
        folders: Vec<FolderHello>,
    }

    #[derive(Serialize, Deserialize)]
    pub struct FolderHello {
        folder: [u8; 16],
        name: String,
        holds: bool,
        incarnation: u64,
        life: u64,
        last: u64,
        received: Option<(u64, u64, u64)>,
        members: Vec<Line>,
    }

    #[derive(Serialize, Deserialize)]
    pub struct Records {
        folder: [u8; 16],
        after: u64,
        through: u64,
        more: bool,
        records: Vec<SentRecord>,
    }

    #[derive(Serialize, Deserialize)]
    pub struct SentRecord {
        path: Vec<u8>,
        version: Vec<(u64, u64)>,
        by: [u8; 5],
        body: RecordBody,
        recipe: Option<Vec<Chunk>>,
        content: Option<Vec<u8>>,
    }

    #[derive(Serialize, Deserialize)]
    pub enum RecordBody {
        Tombstone,
        Dir(u16),
        Symlink(Vec<u8>),
        File {
            mode: u16,
            mtime_ns: i64,
            size: u64,
            content: [u8; 32],
        },
        /// Whether the speaker's rules leave the path out; else it has nothing there, and knows of nothing.
        Withdrawn(bool),
    }

    #[derive(Serialize, Deserialize)]
    pub struct WantRecipe {
        request: u64,
        folder: [u8; 16],
        path: Vec<u8>,
        content: [u8; 32],
    }

    #[derive(Serialize, Deserialize)]
    pub struct Want {
        request: u64,
        folder: [u8; 16],
        items: Vec<RawItem>,
    }

    pub fn chunks(chunks: &[ChunkRef]) -> Vec<Chunk> {
        chunks.iter().map(|c| (c.id.0, c.len)).collect()
    }

    pub fn recipe(chunks: Vec<Chunk>) -> Result<Recipe, DecodeError> {
        let chunks = chunks.into_iter().map(|(id, len)| ChunkRef { id: ChunkId(id), len }).collect();
        Recipe::parse(chunks).map_err(|_| DecodeError::Impossible("recipe"))
    }

    impl From<&super::Hello> for Hello {
        fn from(hello: &super::Hello) -> Self {
            Self { name: hello.name.clone(), folders: hello.folders.iter().map(FolderHello::from).collect() }
        }
    }

    impl Hello {
        pub fn check(self) -> Result<super::Hello, DecodeError> {
            bounded(self.folders.len(), limits::FOLDERS_MAX, "number of folders")?;
            let folders = self.folders.into_iter().map(FolderHello::check).collect::<Result<_, _>>()?;
            Ok(super::Hello { name: label(self.name)?, folders })
        }
    }

    impl From<&super::FolderHello> for FolderHello {
        fn from(hello: &super::FolderHello) -> Self {
            let line = |m: &Member| (*m.device.as_bytes(), m.right.map_or(0, |right| 1 + right as u8), m.stamp);
            Self {
                folder: hello.folder.0,
                name: hello.name.clone(),
                holds: hello.holds,
                incarnation: hello.incarnation.0,
                life: hello.life.0,
                last: hello.last.0,
                received: hello.received.map(|(incarnation, at, life)| (incarnation.0, at.0, life.0)),
                members: hello.members.lines().iter().map(line).collect(),
            }
        }
    }

    impl FolderHello {
        pub fn check(self) -> Result<super::FolderHello, DecodeError> {
            bounded(self.members.len(), limits::MEMBERS_MAX, "number of members")?;
            let line = |(device, right, stamp): Line| {
                let right = match right {
                    0 => None,
                    n => Some(*Right::ALL.get(usize::from(n) - 1).ok_or(DecodeError::Impossible("right"))?),
                };
                if stamp > limits::VERSION_COUNTER_MAX {
                    return Err(DecodeError::Impossible("stamp"));
                }
                Ok(Member { device: DeviceId::from_public_key(device), right, stamp })
            };
            let lines = self.members.into_iter().map(line).collect::<Result<Vec<_>, _>>()?;
            let received = match self.received {
                Some((incarnation, at, life)) => Some((Incarnation(incarnation), sequence(at)?, Life(life))),
                None => None,
            };
            Ok(super::FolderHello {
                folder: FolderId(self.folder),
                name: label(self.name)?,
                holds: self.holds,
                incarnation: Incarnation(self.incarnation),
                life: Life(self.life),
                last: sequence(self.last)?,
                received,
                members: Members::from_lines(lines),
            })
        }
    }

    impl From<&super::Records> for Records {
        fn from(records: &super::Records) -> Self {
            Self {
                folder: records.folder.0,
                after: records.after.0,
                through: records.through.0,
                more: records.more,
                records: records.records.iter().map(SentRecord::from).collect(),
            }
        }
    }

    impl Records {
        pub fn check(self) -> Result<super::Records, DecodeError> {
            bounded(self.records.len(), limits::RECORDS_PER_MESSAGE_MAX, "number of records")?;
            let (after, through) = (sequence(self.after)?, sequence(self.through)?);
            if after > through {
                return Err(DecodeError::Impossible("range of sequences"));
            }
            let records = self.records.into_iter().map(SentRecord::check).collect::<Result<_, _>>()?;
            Ok(super::Records { folder: FolderId(self.folder), after, through, more: self.more, records })
        }
    }

    impl From<&super::SentRecord> for SentRecord {
        fn from(sent: &super::SentRecord) -> Self {
            let record = &sent.record;
            Self {
                path: record.path.as_bytes().to_vec(),
                version: record.version.counters().iter().map(|(author, n)| (author.0, *n)).collect(),
                by: record.by.0,
                body: match &record.body {
                    Body::Tombstone if record.is_withdrawn() => RecordBody::Withdrawn(sent.left_out),
                    body => RecordBody::from(body),
                },
                recipe: sent.recipe.as_ref().map(|recipe| chunks(recipe.chunks())),
                content: sent.content.clone(),
            }
        }
    }

    impl SentRecord {
        fn check(self) -> Result<super::SentRecord, DecodeError> {
            // Who withdraws a path has seen no change, and only who does has not.
            if self.version.is_empty() != matches!(self.body, RecordBody::Withdrawn(_)) {
                return Err(DecodeError::Impossible("version"));
            }
            let left_out = matches!(self.body, RecordBody::Withdrawn(true));
            let version = self.version.into_iter().map(|(author, n)| (AuthorId(author), n)).collect();
            let record = Record {
                path: path(&self.path)?,
                version: VersionVector::parse(version).map_err(|_| DecodeError::Impossible("version"))?,
                by: DeviceTag(self.by),
                body: self.body.check()?,
            };
            let recipe = match self.recipe {
                Some(chunks) => {
                    bounded(chunks.len(), limits::INLINE_CHUNKS_MAX, "number of chunks")?;
                    Some(recipe(chunks)?)
                }
                None => None,
            };
            // A recipe or content that does not fit its record is refused whole: nothing half believed.
            match (&record.body, &recipe, &self.content) {
                (Body::File(file), Some(recipe), content) => {
                    let fits = recipe.size() == file.size && recipe.content_id() == file.content;
                    let content_fits = content.as_ref().is_none_or(|bytes| match recipe.chunks() {
                        [] => bytes.is_empty(),
                        [chunk] => {
                            bytes.len() <= limits::INLINE_CONTENT_MAX
                                && bytes.len() as u64 == file.size
                                && ChunkId::of(bytes) == chunk.id
                        }
                        _ => false,
                    });
                    if !fits || !content_fits {
                        return Err(DecodeError::Impossible("recipe"));
                    }
                }
                (_, None, None) => {}
                _ => return Err(DecodeError::Impossible("content")),
            }
            Ok(super::SentRecord { record, recipe, content: self.content, left_out })
        }
    }

    impl From<&Body> for RecordBody {
        fn from(body: &Body) -> Self {
            match body {
                Body::Tombstone => Self::Tombstone,
                Body::Dir { mode } => Self::Dir(*mode),
                Body::Symlink { target } => Self::Symlink(target.to_vec()),
                Body::File(file) => {
                    Self::File { mode: file.mode, mtime_ns: file.mtime_ns, size: file.size, content: file.content.0 }
                }
            }
        }
    }

    impl RecordBody {
        pub fn check(self) -> Result<Body, DecodeError> {
            let mode = |mode: u16| if mode > 0o777 { Err(DecodeError::Impossible("mode")) } else { Ok(mode) };
            Ok(match self {
                Self::Tombstone | Self::Withdrawn(_) => Body::Tombstone,
                Self::Dir(bits) => Body::Dir { mode: mode(bits)? },
                Self::Symlink(target) => {
                    if target.is_empty() || target.len() > limits::SYMLINK_LEN_MAX || target.contains(&0) {
                        return Err(DecodeError::Impossible("symlink"));
                    }
                    Body::Symlink { target: target.into() }
                }
                Self::File { mode: bits, mtime_ns, size, content } => {
                    // What the system calls take as a signed number, and no more.
                    if size > i64::MAX as u64 {
                        return Err(DecodeError::Impossible("size"));
                    }
                    Body::File(FileBody { mode: mode(bits)?, mtime_ns, size, content: ContentId(content) })
                }
            })
        }
    }

    impl From<&super::WantRecipe> for WantRecipe {
        fn from(want: &super::WantRecipe) -> Self {
            Self {
                request: want.request,
                folder: want.folder.0,
                path: want.path.as_bytes().to_vec(),
                content: want.content.0,
            }
        }
    }

    impl WantRecipe {
        pub fn check(self) -> Result<super::WantRecipe, DecodeError> {
            Ok(super::WantRecipe {
                request: self.request,
                folder: FolderId(self.folder),
                path: path(&self.path)?,
                content: ContentId(self.content),
            })
        }
    }

    impl From<&super::Want> for Want {
        fn from(want: &super::Want) -> Self {
            let run = |run: &Run| (run.first, run.offset, run.lens.clone());
            let item =
                |item: &WantItem| (item.path.as_bytes().to_vec(), item.content.0, item.runs.iter().map(run).collect());
            Self { request: want.request, folder: want.folder.0, items: want.items.iter().map(item).collect() }
        }
    }

    impl Want {
        pub fn check(self) -> Result<super::Want, DecodeError> {
            bounded(self.items.len(), limits::WANT_ITEMS_MAX, "number of items")?;
            let run = |(first, offset, lens): (u32, u64, Vec<u32>)| {
                if lens.iter().any(|len| *len == 0 || *len as usize > limits::CHUNK_LEN_MAX) {
                    return Err(DecodeError::Impossible("length of a chunk"));
                }
                let run = Run { first, offset, lens };
                let end = run.offset.checked_add(run.bytes()).filter(|end| *end <= i64::MAX as u64);
                let last = u32::try_from(run.lens.len()).ok().and_then(|n| run.first.checked_add(n));
                if end.is_none() || last.is_none() {
                    return Err(DecodeError::Impossible("range"));
                }
                Ok(run)
            };
            let items = self.items.into_iter().map(|(at, content, runs)| {
                let runs = runs.into_iter().map(run).collect::<Result<_, _>>()?;
                Ok(WantItem { path: path(&at)?, content: ContentId(content), runs })
            });
            let items = items.collect::<Result<_, DecodeError>>()?;
            let want = super::Want { request: self.request, folder: FolderId(self.folder), items };
            if want.bytes() > limits::WANT_BYTES_IN_FLIGHT_MAX {
                return Err(DecodeError::Impossible("size of a request"));
            }
            Ok(want)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(message: &Message) -> Message {
        let (header, body) = message.encode();
        Message::decode(message.kind(), &header, &body).unwrap().unwrap()
    }

    fn rel(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn sent(content: &[u8]) -> SentRecord {
        let chunk = ChunkRef { id: ChunkId::of(content), len: content.len() as u32 };
        let recipe = Recipe::parse(vec![chunk]).unwrap();
        let file = FileBody { mode: 0o644, mtime_ns: -5, size: recipe.size(), content: recipe.content_id() };
        let version = VersionVector::parse(vec![(AuthorId(7), 3)]).unwrap();
        let record = Record { path: rel("a/b"), version, by: DeviceTag([1; 5]), body: Body::File(file) };
        SentRecord { record, recipe: Some(recipe), content: Some(content.to_vec()), left_out: false }
    }

    fn records(records: Vec<SentRecord>) -> Message {
        let (after, through) = (Sequence(1), Sequence(9));
        Message::Records(Records { folder: FolderId([1; 16]), after, through, more: true, records })
    }

    #[test]
    fn every_message_survives_the_wire() {
        let members = Members::from_lines([
            Member { device: DeviceId::from_public_key([1; 32]), right: Some(Right::Owner), stamp: 2 },
            Member { device: DeviceId::from_public_key([2; 32]), right: None, stamp: 3 },
        ]);
        let folder = FolderHello {
            folder: FolderId([3; 16]),
            name: "photos".into(),
            holds: true,
            incarnation: Incarnation(u64::MAX),
            last: Sequence(4),
            life: Life(7),
            received: Some((Incarnation(5), Sequence(6), Life(8))),
            members,
        };
        let want = WantRecipe { request: 1, folder: FolderId([2; 16]), path: rel("x"), content: ContentId([4; 32]) };
        let run = Run { first: 2, offset: 100, lens: vec![5, 6] };
        let item = WantItem { path: rel("x"), content: ContentId([4; 32]), runs: vec![run] };
        let chunk = ChunkRef { id: ChunkId([9; 32]), len: 77 };
        for message in [
            Message::Hello(Hello { name: "laptop".into(), folders: vec![folder.clone()] }),
            Message::Folder(folder),
            Message::Unshare(FolderId([7; 16])),
            Message::Trust(vec![Revocation { device: DeviceId::from_public_key([5; 32]), stamp: 3, is_lifted: true }]),
            Message::NextId(None),
            Message::NextId(Some(NextId { id: DeviceId::from_public_key([6; 32]), proof: [7; 32] })),
            Message::NextNoted(DeviceId::from_public_key([6; 32])),
            records(vec![sent(b"hello")]),
            Message::Ack(Ack { folder: FolderId([1; 16]), received: Sequence(1), last: Sequence(2), tree: [3; 32] }),
            Message::WantRecipe(want.clone()),
            Message::Recipe { request: 8, pages: vec![PageRef::of(&[chunk])] },
            Message::WantPages { want, pages: vec![0, 7] },
            Message::Page { request: 8, page: 3, chunks: vec![chunk] },
            Message::Want(Want { request: 4, folder: FolderId([1; 16]), items: vec![item] }),
            Message::Chunk(ChunkHeader { request: 4, item: 0, chunk: 2 }),
            Message::Missing { request: 4, item: 0 },
            Message::Ping,
            Message::Pong,
            Message::Goodbye(Goodbye::Misbehaved),
        ] {
            assert_eq!(round_trip(&message), message);
        }
    }

    #[test]
    fn only_what_is_withdrawn_is_a_version_of_nobody() {
        let withdrawn = Record::withdrawn(rel("a"), DeviceTag([1; 5]));
        for left_out in [true, false] {
            let said = records(vec![SentRecord { record: withdrawn.clone(), recipe: None, content: None, left_out }]);
            assert_eq!(round_trip(&said), said);
        }
        let body = Body::Dir { mode: 0o755 };
        let of_nobody = Record { body, ..withdrawn };
        let said = records(vec![SentRecord { record: of_nobody, recipe: None, content: None, left_out: false }]);
        let (header, bytes) = said.encode();
        assert_eq!(Message::decode(kind::RECORDS, &header, &bytes), Err(DecodeError::Impossible("version")));
    }

    #[test]
    fn a_kind_of_a_later_version_is_skipped() {
        assert_eq!(Message::decode(0x7e, b"whatever", b"it says"), Ok(None));
    }

    #[test]
    fn content_that_is_not_what_the_record_says_is_refused() {
        let mut lie = sent(b"hello");
        lie.content = Some(b"hellO".to_vec());
        let (header, body) = records(vec![lie]).encode();
        assert_eq!(Message::decode(kind::RECORDS, &header, &body), Err(DecodeError::Impossible("recipe")));
    }

    #[test]
    fn more_than_a_request_may_ask_is_refused() {
        let run = Run { first: 0, offset: 0, lens: vec![limits::CHUNK_LEN_MAX as u32; 5] };
        let item = WantItem { path: rel("x"), content: ContentId([0; 32]), runs: vec![run] };
        let want = Message::Want(Want { request: 1, folder: FolderId([0; 16]), items: vec![item] });
        let (header, body) = want.encode();
        assert_eq!(Message::decode(kind::WANT, &header, &body), Err(DecodeError::Impossible("size of a request")));
    }

    #[test]
    fn left_over_bytes_are_refused() {
        let (mut header, body) = Message::Unshare(FolderId([0; 16])).encode();
        header.push(0);
        let refused = Message::decode(kind::UNSHARE, &header, &body);
        assert_eq!(refused, Err(DecodeError::Malformed { kind: kind::UNSHARE }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(
            kind in 0u8..0x40,
            header in proptest::collection::vec(any::<u8>(), 0..64),
            body in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            // Whatever decodes must encode to something that decodes to the same.
            if let Ok(Some(message)) = Message::decode(kind, &header, &body) {
                prop_assert_eq!(round_trip(&message), message);
            }
        }

        #[test]
        fn one_wrong_bit_never_makes_the_decoder_panic(at in 0usize..200, bit in 0u8..8) {
            let (header, mut body) = records(vec![sent(b"hello"), sent(b"world")]).encode();
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1 << bit;
            }
            drop(Message::decode(kind::RECORDS, &header, &body));
        }
    }
}
