//! History across devices: telling peers which former versions are kept here, and taking theirs.
//!
//! A former version has no recipe in any index. So it is asked for in pieces of one length, which come to lie in a
//! staging file; when all are there, that is cut into chunks as every file is, and counts only if its content id is the
//! one that was asked for. Nothing of it is seen outside of the staging area before.
//!
//! Of what a peer says here only what somebody asked for is heard, and each version must lie where it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::chunk::VerifiedChunk;
use crate::engine::effect::StageId;
use crate::engine::folder::{Folder, Now, Output};
use crate::engine::index::{Index, Kept};
use crate::model::id::{ContentId, DeviceId};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::problem::ProblemKind;
use crate::model::record::FileBody;
use crate::wire::message::{ChunkHeader, Message, Run, Want, WantItem};
use crate::wire::past::{Former, History, WantHistory};

/// Bytes of a piece; the last of a file has what is left.
const PIECE_LEN: u64 = 256 << 10;
/// Bytes that one request asks for, roughly.
const REQUEST_BYTES: u64 = 1 << 20;
/// Files in one request.
const REQUEST_ITEMS: usize = 64;
/// Bytes that are asked for or not staged yet.
const WINDOW: u64 = limits::WANT_BYTES_IN_FLIGHT_MAX / 4;
/// Requests that are open at a time.
const REQUESTS_MAX: usize = 16;
/// So many times the patience for one page all of them may take.
const PATIENCES_MAX: u32 = 6;
/// Time within which something of what was asked for arrives: a disk that sleeps may have to wake up.
const PIECES_PATIENCE: Duration = Duration::from_secs(60);
/// Staging files of former versions are numbered from here, where no other file's are.
const COPIES_FROM: u32 = 1 << 31;

const _: () = assert!(PIECE_LEN as usize <= limits::CHUNK_LEN_MAX);
const _: () = assert!(REQUEST_ITEMS <= limits::WANT_ITEMS_MAX && REQUEST_BYTES < limits::WANT_BYTES_IN_FLIGHT_MAX);

/// Names something that was asked of a peer's history, so that its answer finds who waits for it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PastId(u64);

/// Why a peer's history could not be had.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PastError {
    /// It is not connected, or does not share the folder.
    #[error("is not connected")]
    Away,
    /// It did not answer.
    #[error("did not answer")]
    Silent,
    /// There are more than [`limits::HISTORY_VERSIONS_MAX`] versions.
    #[error("keeps more former versions than can be listed")]
    TooMany,
    /// It keeps that version no more, or cannot read it.
    #[error("does not have the former version of {0} any more")]
    Gone(RelPath),
    /// It sent something else than it had said.
    #[error("sent something else than the former version of {0}")]
    Wrong(RelPath),
    /// This device's disk could not take it.
    #[error("sent what cannot be written here: {0}")]
    Disk(String),
}

/// What is under way of the past.
#[derive(Debug, Default)]
pub(super) struct Past {
    last: u64,
    /// Questions about history, by their requests.
    questions: BTreeMap<u64, Question>,
    takings: BTreeMap<PastId, Taking>,
    /// Requests for pieces.
    requests: BTreeMap<u64, Pieces>,
    last_copy: u32,
}

/// A question that a peer has yet to answer to its end.
#[derive(Debug)]
struct Question {
    id: PastId,
    peer: DeviceId,
    top: Option<RelPath>,
    versions: Vec<Former>,
    /// When the next page must be here.
    due: Duration,
    /// When the last one must.
    until: Duration,
}

/// Former versions that are being taken from a peer.
#[derive(Debug)]
struct Taking {
    peer: DeviceId,
    files: Vec<File>,
    /// The first file of which something has yet to be asked for.
    next: usize,
    /// Bytes that are asked for or not staged yet.
    pending: u64,
    /// Files that are whole and were checked.
    checked: usize,
    /// When the next piece must be here, if there is one that was asked for.
    due: Duration,
}

/// One of them.
#[derive(Debug)]
struct File {
    path: RelPath,
    content: ContentId,
    size: u64,
    stage: StageId,
    pieces: u32,
    /// The first piece that was not asked for yet.
    next: u32,
    /// Pieces that are asked for or not staged yet.
    open: u32,
}

/// Pieces that were asked for in one request: of which taking, and item by item of which file.
#[derive(Debug)]
struct Pieces {
    id: PastId,
    items: Vec<(usize, BTreeSet<u32>)>,
}

impl File {
    fn piece_len(&self, piece: u32) -> u64 {
        PIECE_LEN.min(self.size.saturating_sub(u64::from(piece) * PIECE_LEN))
    }

    fn is_staged(&self) -> bool {
        self.next == self.pieces && self.open == 0
    }
}

impl Past {
    fn next_id(&mut self) -> PastId {
        self.last += 1;
        PastId(self.last)
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let questions = self.questions.values().map(|question| question.due);
        questions.chain(self.awaited().map(|(_, due)| due)).min()
    }

    /// Returns the takings that wait for a peer and not for the disk, and until when.
    fn awaited(&self) -> impl Iterator<Item = (PastId, Duration)> {
        let ids: BTreeSet<PastId> = self.requests.values().map(|request| request.id).collect();
        ids.into_iter().filter_map(|id| Some((id, self.takings.get(&id)?.due)))
    }

    /// Whether a staging file belongs to a former version.
    pub(super) fn is_stage(stage: &StageId) -> bool {
        stage.copy >= COPIES_FROM
    }

    /// Finds the taking that a staging file is for, and which of its files it is.
    fn file_of(&mut self, stage: &StageId) -> Option<(PastId, &mut Taking, usize)> {
        self.takings.iter_mut().find_map(|(id, taking)| {
            let at = taking.files.iter().position(|file| file.stage == *stage)?;
            Some((*id, taking, at))
        })
    }
}

impl<I: Index> Folder<I> {
    // ------------------------------------------------------------------------------------ asking

    /// Asks a peer which former versions it keeps of a path and of all below it (`None`: of the whole folder).
    /// [`Output::Told`] answers, in any case.
    pub fn ask_history(&mut self, now: Now, peer: DeviceId, top: Option<RelPath>) -> PastId {
        let id = self.past.next_id();
        if !self.peers.contains_key(&peer) {
            self.outputs.push_back(Output::Told(id, Err(PastError::Away)));
            return id;
        }
        let until = now.at + limits::HISTORY_PATIENCE * PATIENCES_MAX;
        self.ask_page(now, Question { id, peer, top, versions: Vec::new(), due: now.at, until });
        id
    }

    fn ask_page(&mut self, now: Now, mut question: Question) {
        self.last_request += 1;
        question.due = question.until.min(now.at + limits::HISTORY_PATIENCE);
        let want = WantHistory {
            request: self.last_request,
            folder: self.params.folder,
            top: question.top.clone(),
            after: question.versions.last().map(|last| (last.path.clone(), last.until_ns)),
        };
        self.outputs.push_back(Output::Send(question.peer, Message::WantHistory(want)));
        self.past.questions.insert(self.last_request, question);
    }

    pub(super) fn handle_history(&mut self, now: Now, peer: DeviceId, history: History) {
        let is_asked = self.past.questions.get(&history.request).is_some_and(|question| question.peer == peer);
        let Some(mut question) = self.past.questions.remove(&history.request).filter(|_| is_asked) else {
            return;
        };
        let is_last = !history.more || history.versions.is_empty();
        for former in history.versions {
            let is_below = question.top.as_ref().is_none_or(|top| former.path == *top || former.path.is_below(top));
            let before = question.versions.last();
            let is_next = before.is_none_or(|b| (&b.path, b.until_ns) <= (&former.path, former.until_ns));
            if !is_below || !is_next {
                self.misbehaved(peer, "a history that was not asked for");
                self.outputs.push_back(Output::Told(question.id, Err(PastError::Wrong(former.path))));
                return;
            }
            question.versions.push(former);
        }
        if is_last {
            self.outputs.push_back(Output::Told(question.id, Ok(question.versions)));
        } else if question.versions.len() >= limits::HISTORY_VERSIONS_MAX {
            self.outputs.push_back(Output::Told(question.id, Err(PastError::TooMany)));
        } else {
            self.ask_page(now, question);
        }
    }

    // ------------------------------------------------------------------------------------ taking

    /// Takes the contents of former versions from a peer. [`Output::Taken`] answers, in any case.
    pub fn take_former(&mut self, now: Now, peer: DeviceId, files: &[(RelPath, FileBody)]) -> PastId {
        let id = self.past.next_id();
        let mut taking =
            Taking { peer, files: Vec::new(), next: 0, pending: 0, checked: 0, due: now.at + PIECES_PATIENCE };
        for (path, body) in files {
            let Ok(pieces) = u32::try_from(body.size.div_ceil(PIECE_LEN)) else {
                self.outputs.push_back(Output::Taken(id, Err(PastError::Wrong(path.clone()))));
                return id;
            };
            self.past.last_copy = self.past.last_copy.wrapping_add(1) % COPIES_FROM;
            let stage = StageId { content: body.content, copy: COPIES_FROM + self.past.last_copy };
            let (path, content, size) = (path.clone(), body.content, body.size);
            taking.files.push(File { path, content, size, stage, pieces, next: 0, open: 0 });
        }
        if !self.peers.contains_key(&peer) {
            self.outputs.push_back(Output::Taken(id, Err(PastError::Away)));
        } else if taking.files.is_empty() {
            self.outputs.push_back(Output::Taken(id, Ok(Vec::new())));
        } else {
            self.past.takings.insert(id, taking);
        }
        id
    }

    /// Asks for more pieces where there is room, and gives up whom nobody answers.
    pub(super) fn pump_past(&mut self, now: Now) {
        for (_, question) in self.past.questions.extract_if(.., |_, question| question.due <= now.at) {
            self.outputs.push_back(Output::Told(question.id, Err(PastError::Silent)));
        }
        let silent: Vec<_> = self.past.awaited().filter(|(_, due)| *due <= now.at).map(|(id, _)| id).collect();
        for id in silent {
            self.fail_taking(id, PastError::Silent);
        }
        let ids: Vec<_> = self.past.takings.keys().copied().collect();
        for id in ids {
            while self.ask_pieces(now, id) {}
        }
    }

    /// Sends one request for pieces, if there is something to ask for and room for it.
    fn ask_pieces(&mut self, now: Now, id: PastId) -> bool {
        let open = self.past.requests.values().filter(|request| request.id == id).count();
        let Some(taking) = self.past.takings.get_mut(&id).filter(|t| t.pending < WINDOW && open < REQUESTS_MAX) else {
            return false;
        };
        let (mut bytes, mut wanted, mut items) = (0, Vec::new(), Vec::new());
        while bytes < REQUEST_BYTES && wanted.len() < REQUEST_ITEMS {
            let Some(file) = taking.files.get_mut(taking.next) else {
                break;
            };
            if file.pieces == 0 {
                // Of nothing there is nothing to ask for.
                self.outputs.push_back(Output::Rechunk(file.stage, 0));
            }
            let (first, mut lens) = (file.next, Vec::new());
            while file.next < file.pieces && bytes < REQUEST_BYTES {
                let len = file.piece_len(file.next);
                bytes += len;
                lens.push(u32::try_from(len).unwrap_or(u32::MAX));
                file.next += 1;
                file.open += 1;
            }
            if !lens.is_empty() {
                let run = Run { first, offset: u64::from(first) * PIECE_LEN, lens };
                items.push((taking.next, (first..file.next).collect()));
                wanted.push(WantItem { path: file.path.clone(), content: file.content, runs: vec![run] });
            }
            taking.next += usize::from(file.next == file.pieces);
        }
        if wanted.is_empty() {
            return false;
        }
        taking.pending += bytes;
        taking.due = now.at + PIECES_PATIENCE;
        self.last_request += 1;
        let want = Want { request: self.last_request, folder: self.params.folder, items: wanted };
        self.outputs.push_back(Output::Send(taking.peer, Message::Want(want)));
        self.past.requests.insert(self.last_request, Pieces { id, items });
        true
    }

    /// Whether a peer was asked for pieces by this request.
    pub(super) fn is_for_pieces(&self, peer: &DeviceId, request: u64) -> bool {
        let taking = self.past.requests.get(&request).and_then(|pieces| self.past.takings.get(&pieces.id));
        taking.is_some_and(|taking| taking.peer == *peer)
    }

    pub(super) fn handle_piece(&mut self, now: Now, peer: DeviceId, header: ChunkHeader, chunk: VerifiedChunk) {
        let Some(request) = self.past.requests.get_mut(&header.request) else {
            return;
        };
        let (id, item) = (request.id, request.items.get_mut(usize::from(header.item)));
        let Some(at) = item.and_then(|(at, pieces)| pieces.remove(&header.chunk).then_some(*at)) else {
            self.misbehaved(peer, "a chunk that was not asked for");
            return;
        };
        if request.items.iter().all(|(_, pieces)| pieces.is_empty()) {
            self.past.requests.remove(&header.request);
        }
        let Some(taking) = self.past.takings.get_mut(&id) else {
            return;
        };
        taking.due = now.at + PIECES_PATIENCE;
        let Some(file) = taking.files.get(at) else {
            return;
        };
        if chunk.bytes().len() as u64 != file.piece_len(header.chunk) {
            let error = PastError::Wrong(file.path.clone());
            return self.fail_taking(id, error);
        }
        let offset = u64::from(header.chunk) * PIECE_LEN;
        self.outputs.push_back(Output::Stage(file.stage, header.chunk, offset, chunk));
    }

    pub(super) fn handle_piece_missing(&mut self, request: u64, item: u16) {
        let Some(pieces) = self.past.requests.get(&request) else {
            return;
        };
        let id = pieces.id;
        let at = pieces.items.get(usize::from(item)).map(|(at, _)| *at);
        let file = at.and_then(|at| self.past.takings.get(&id)?.files.get(at));
        if let Some(file) = file {
            let error = PastError::Gone(file.path.clone());
            self.fail_taking(id, error);
        }
    }

    pub(super) fn handle_piece_staged(
        &mut self,
        stage: StageId,
        piece: u32,
        result: Result<(), (ProblemKind, String)>,
    ) {
        let Some((id, taking, at)) = self.past.file_of(&stage) else {
            return;
        };
        if let Err((_, detail)) = result {
            return self.fail_taking(id, PastError::Disk(detail));
        }
        let file = &mut taking.files[at];
        file.open = file.open.saturating_sub(1);
        taking.pending = taking.pending.saturating_sub(file.piece_len(piece));
        if file.is_staged() {
            self.outputs.push_back(Output::Rechunk(file.stage, file.size));
        }
    }

    /// A staging file that has all its pieces was cut into chunks: now it shows whether they are the version's.
    pub(super) fn handle_rechunked(
        &mut self,
        stage: StageId,
        result: Result<Option<ContentId>, (ProblemKind, String)>,
    ) {
        let Some((id, taking, at)) = self.past.file_of(&stage) else {
            return;
        };
        match result {
            Err((_, detail)) => self.fail_taking(id, PastError::Disk(detail)),
            Ok(content) if content != Some(stage.content) => {
                let error = PastError::Wrong(taking.files[at].path.clone());
                self.fail_taking(id, error);
            }
            Ok(_) => {
                taking.checked += 1;
                if taking.checked == taking.files.len() {
                    let stages = taking.files.iter().map(|file| file.stage).collect();
                    self.past.takings.remove(&id);
                    self.outputs.push_back(Output::Taken(id, Ok(stages)));
                }
            }
        }
    }

    /// Gives up a taking with all that arrived of it.
    fn fail_taking(&mut self, id: PastId, error: PastError) {
        let Some(taking) = self.past.takings.remove(&id) else {
            return;
        };
        self.past.requests.retain(|_, request| request.id != id);
        self.outputs.extend(taking.files.iter().map(|file| Output::Discard(file.stage)));
        self.outputs.push_back(Output::Taken(id, Err(error)));
    }

    /// A peer is gone: nobody answers any more what it was asked.
    pub(super) fn drop_past_of(&mut self, peer: &DeviceId) {
        for (_, question) in self.past.questions.extract_if(.., |_, question| question.peer == *peer) {
            self.outputs.push_back(Output::Told(question.id, Err(PastError::Away)));
        }
        let gone: Vec<_> = self.past.takings.iter().filter(|(_, t)| t.peer == *peer).map(|(id, _)| *id).collect();
        for id in gone {
            self.fail_taking(id, PastError::Away);
        }
    }

    // ----------------------------------------------------------------------------------- serving

    /// Tells a peer, which may read the folder as it is one of its peers, what is kept here.
    pub(super) fn serve_history(&mut self, peer: DeviceId, want: WantHistory) -> Result<(), I::Error> {
        let mut after = want.after;
        let (versions, more) = loop {
            let from = after.as_ref().map(|(path, until_ns)| (path, *until_ns));
            let page = self.index.kept_page(want.top.as_ref(), from, limits::HISTORY_PAGE_MAX)?;
            let end = page.last().map(|kept| (kept.path.clone(), kept.until_ns));
            let more = page.len() == limits::HISTORY_PAGE_MAX;
            let versions: Vec<Former> = page.into_iter().filter(can_be_told).map(former).collect();
            if !more || !versions.is_empty() {
                break (versions, more);
            }
            after = end;
        };
        let history = History { request: want.request, versions, more };
        self.outputs.push_back(Output::Send(peer, Message::History(history)));
        Ok(())
    }

    /// Returns the former version of a path that has this content, if one is kept here.
    pub(super) fn kept_with(&self, path: &RelPath, content: ContentId) -> Result<Option<Kept>, I::Error> {
        let is_it = |kept: &Kept| can_be_told(kept) && kept.body.file().is_some_and(|file| file.content == content);
        Ok(self.index.kept(Some(path), false)?.into_iter().find(is_it))
    }
}

/// Whether others can tell by its content whether they have got it. Of what a crash left in history nobody knows it.
fn can_be_told(kept: &Kept) -> bool {
    kept.file.is_some() && kept.body.file().is_none_or(|file| file.content != ContentId([0; 32]))
}

fn former(kept: Kept) -> Former {
    let Kept { path, body, by, since_ns, until_ns, .. } = kept;
    Former { path, body, by, since_ns, until_ns }
}
