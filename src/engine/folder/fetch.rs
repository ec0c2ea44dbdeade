//! Asking peers for recipes and chunks, and answering their requests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::engine::chunk::VerifiedChunk;
use crate::engine::chunker::chunk_len_min;
use crate::engine::folder::take::{PEER_PAUSE_MAX, Step, Task, TaskId};
use crate::engine::folder::{Folder, Now, Output};
use crate::engine::index::{Index, Local};
use crate::model::id::{ContentId, DeviceId, PageId};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::recipe::{ChunkRef, PageRef, Recipe, content_id_of};
use crate::wire::message::{ChunkHeader, Message, Run, Want, WantItem, WantRecipe};

/// Bytes that one request asks for, roughly.
const REQUEST_BYTES: u64 = 1 << 20;
/// Files in one request.
const REQUEST_ITEMS: usize = 256;
/// Chunks in one request: honest ones are so long that far fewer of them fill it, but the recipe of a peer may
/// have chunks of one byte, and a request that names too many of them would fit no frame.
const REQUEST_CHUNKS: usize = 4096;

// A path and a run's numbers take no more than this.
const _: () = assert!(REQUEST_ITEMS * (limits::PATH_LEN_MAX + 64) + REQUEST_CHUNKS * 32 < limits::FRAME_LEN_MAX);
/// Bytes asked of one peer and not yet answered.
const WINDOW: u64 = limits::WANT_BYTES_IN_FLIGHT_MAX / 2;
/// Requests for recipes and pages open at one peer.
const RECIPES_MAX: usize = 32;

/// Paths in the order of their coming, each only once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<RelPath>,
    members: BTreeSet<RelPath>,
}

impl Queue {
    pub(super) fn push_back(&mut self, path: RelPath) {
        if self.members.insert(path.clone()) {
            self.order.push_back(path);
        }
    }

    fn push_front(&mut self, path: RelPath) {
        if self.members.insert(path.clone()) {
            self.order.push_front(path);
        }
    }

    fn pop_front(&mut self) -> Option<RelPath> {
        let path = self.order.pop_front()?;
        self.members.remove(&path);
        Some(path)
    }

    fn extend(&mut self, paths: Vec<RelPath>) {
        paths.into_iter().for_each(|path| self.push_back(path));
    }
}

/// Something that was asked of a peer.
#[derive(Debug)]
pub(super) struct Request {
    peer: DeviceId,
    what: Asked,
}

#[derive(Debug)]
enum Asked {
    Recipe(RelPath, TaskId),
    Pages { path: RelPath, task: TaskId, left: usize },
    Chunks { items: Vec<AskedItem>, bytes: u64, left: usize },
}

/// The chunks of one file that were asked for in a request.
#[derive(Debug)]
struct AskedItem {
    path: RelPath,
    task: TaskId,
    chunks: BTreeMap<u32, (u64, ChunkRef)>,
}

impl<I: Index> Folder<I> {
    /// Asks connected peers for what the tasks lack, as far as their windows allow.
    pub(super) fn pump_requests(&mut self) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            while self.has_window(&peer) && self.ask(peer) {}
        }
    }

    fn has_window(&self, peer: &DeviceId) -> bool {
        self.peers.get(peer).is_some_and(|p| {
            p.asked_bytes < WINDOW && p.asked_requests < limits::WANTS_IN_FLIGHT_MAX && p.asked_requests < RECIPES_MAX
        })
    }

    /// Sends one request to a peer, if there is something to ask it for.
    fn ask(&mut self, peer: DeviceId) -> bool {
        let mut items = Vec::new();
        let mut wanted = Vec::new();
        let (mut bytes, mut chunks) = (0, 0);
        let mut passed_over = Vec::new();
        while bytes < REQUEST_BYTES && chunks < REQUEST_CHUNKS && items.len() < REQUEST_ITEMS {
            let Some(path) = self.fetchable.pop_front() else {
                break;
            };
            let Some(task) = self.tasks.get_mut(&path) else {
                continue;
            };
            if !task.providers.contains(&peer) {
                passed_over.push(path);
                continue;
            }
            let (content, id) = (task.content(), task.id);
            match &mut task.step {
                Step::Root { asked } if !*asked => {
                    *asked = true;
                    self.fetchable.extend(passed_over);
                    self.give_back(items, wanted);
                    self.ask_recipe(peer, path, id, content, None);
                    return true;
                }
                Step::Pages { root, have, asked } if !*asked => {
                    *asked = true;
                    let missing = root.iter().enumerate().filter(|(_, page)| !have.contains_key(&page.id));
                    let pages = missing.map(|(n, _)| n as u32).take(limits::WANT_ITEMS_MAX).collect();
                    self.fetchable.extend(passed_over);
                    self.give_back(items, wanted);
                    self.ask_recipe(peer, path, id, content, Some(pages));
                    return true;
                }
                Step::Chunks { todo, asked, .. } => {
                    let Some(recipe) = &task.recipe else {
                        continue;
                    };
                    let mut item = AskedItem { path: path.clone(), task: id, chunks: BTreeMap::new() };
                    let room = (REQUEST_BYTES - bytes, REQUEST_CHUNKS - chunks);
                    let runs = take_runs(recipe, todo, room, &mut item.chunks);
                    if runs.is_empty() {
                        continue;
                    }
                    asked.extend(item.chunks.keys());
                    bytes += runs.iter().map(Run::bytes).sum::<u64>();
                    chunks += item.chunks.len();
                    let is_more = !todo.is_empty();
                    wanted.push(WantItem { path: path.clone(), content, runs });
                    items.push(item);
                    if is_more {
                        self.fetchable.push_front(path);
                    }
                }
                _ => {}
            }
        }
        self.fetchable.extend(passed_over);
        if items.is_empty() {
            return false;
        }
        let left = items.iter().map(|item| item.chunks.len()).sum();
        let request = self.open_request(peer, Asked::Chunks { items, bytes, left }, bytes);
        let want = Want { request, folder: self.params.folder, items: wanted };
        self.outputs.push_back(Output::Send(peer, Message::Want(want)));
        true
    }

    /// Undoes a request for chunks that was not sent after all.
    fn give_back(&mut self, items: Vec<AskedItem>, _wanted: Vec<WantItem>) {
        for item in items {
            self.return_chunks(&item);
        }
    }

    fn ask_recipe(&mut self, peer: DeviceId, path: RelPath, task: TaskId, content: ContentId, pages: Option<Vec<u32>>) {
        let asked = match &pages {
            None => Asked::Recipe(path.clone(), task),
            Some(pages) => Asked::Pages { path: path.clone(), task, left: pages.len() },
        };
        let request = self.open_request(peer, asked, 0);
        let want = WantRecipe { request, folder: self.params.folder, path, content };
        let message = match pages {
            None => Message::WantRecipe(want),
            Some(pages) => Message::WantPages { want, pages },
        };
        self.outputs.push_back(Output::Send(peer, message));
    }

    fn open_request(&mut self, peer: DeviceId, what: Asked, bytes: u64) -> u64 {
        self.last_request += 1;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.asked_bytes += bytes;
            peer.asked_requests += 1;
        }
        self.requests.insert(self.last_request, Request { peer, what });
        self.last_request
    }

    fn close_request(&mut self, request: u64) {
        let Some(Request { peer, what }) = self.requests.remove(&request) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.asked_requests = peer.asked_requests.saturating_sub(1);
            if let Asked::Chunks { bytes, .. } = what {
                peer.asked_bytes = peer.asked_bytes.saturating_sub(bytes);
            }
        }
    }

    /// Gives back all that a peer was asked for and will not answer any more.
    pub(super) fn drop_requests_of(&mut self, peer: &DeviceId) {
        let of_peer: Vec<_> = self.requests.iter().filter(|(_, r)| r.peer == *peer).map(|(n, _)| *n).collect();
        for number in of_peer {
            let Some(request) = self.requests.remove(&number) else {
                continue;
            };
            match request.what {
                Asked::Recipe(path, task) | Asked::Pages { path, task, .. } => self.ask_anew(&path, task),
                Asked::Chunks { items, .. } => items.iter().for_each(|item| self.return_chunks(item)),
            }
        }
    }

    /// The task at a path that something was asked for, unless it is gone or another one has come.
    fn asker(&mut self, path: &RelPath, id: TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(path).filter(|task| task.id == id)
    }

    fn ask_anew(&mut self, path: &RelPath, id: TaskId) {
        if let Some(task) = self.asker(path, id)
            && let Step::Root { asked } | Step::Pages { asked, .. } = &mut task.step
        {
            *asked = false;
            self.fetchable.push_back(path.clone());
        }
    }

    fn return_chunks(&mut self, item: &AskedItem) {
        let Some(task) = self.asker(&item.path, item.task) else {
            return;
        };
        if let Step::Chunks { todo, asked, .. } = &mut task.step {
            for chunk in item.chunks.keys() {
                if asked.remove(chunk) {
                    todo.push(*chunk);
                }
            }
            todo.sort_unstable_by(|a, b| b.cmp(a));
            self.fetchable.push_back(item.path.clone());
        }
    }

    pub(super) fn handle_recipe(
        &mut self,
        now: Now,
        peer: DeviceId,
        request: u64,
        pages: Vec<PageRef>,
    ) -> Result<(), I::Error> {
        let Some(Request { what: Asked::Recipe(path, id), .. }) = self.request_of(peer, request) else {
            return Ok(());
        };
        let (path, id) = (path.clone(), *id);
        self.close_request(request);
        let size = pages.iter().try_fold(0u64, |sum, page| sum.checked_add(page.bytes));
        let Some(task) = self.asker(&path, id) else {
            return Ok(());
        };
        let chunks: u64 = pages.iter().map(|page| u64::from(page.chunks)).sum();
        let fits = size.is_some_and(|size| chunks <= chunks_max(size));
        if content_id_of(&pages) != task.content() || size != task.size() || !fits {
            self.misbehaved(peer, "a recipe that is not what its record says");
            return Ok(());
        }
        // Pages of the version that lies here need not travel.
        let mut have = BTreeMap::new();
        if let Some(former) = self.index.recipe(&path)? {
            have.extend(former.pages().map(|chunks| (PageRef::of(chunks).id, chunks.to_vec())));
        }
        if let Some(task) = self.tasks.get_mut(&path) {
            task.step = Step::Pages { root: pages, have, asked: false };
        }
        self.complete_pages(now, &path)
    }

    pub(super) fn handle_page(
        &mut self,
        now: Now,
        peer: DeviceId,
        request: u64,
        chunks: Vec<ChunkRef>,
    ) -> Result<(), I::Error> {
        let Some(Request { what: Asked::Pages { path, task, left }, .. }) = self.request_of(peer, request) else {
            return Ok(());
        };
        *left = left.saturating_sub(1);
        let (path, id, is_last) = (path.clone(), *task, *left == 0);
        if is_last {
            self.close_request(request);
        }
        let Some(task) = self.asker(&path, id) else {
            return Ok(());
        };
        let Step::Pages { root, have, asked } = &mut task.step else {
            return Ok(());
        };
        let page = PageRef::of(&chunks);
        if !root.contains(&page) {
            self.misbehaved(peer, "a recipe page that was not asked for");
            return Ok(());
        }
        have.insert(page.id, chunks);
        if is_last {
            *asked = false;
            return self.complete_pages(now, &path);
        }
        Ok(())
    }

    /// Puts the recipe together, or asks for the pages that are still missing.
    fn complete_pages(&mut self, _now: Now, path: &RelPath) -> Result<(), I::Error> {
        let Some(mut task) = self.tasks.remove(path) else {
            return Ok(());
        };
        if let Step::Pages { root, have, .. } = &task.step {
            let pages: Option<Vec<&Vec<ChunkRef>>> =
                root.iter().map(|page: &PageRef| have.get::<PageId>(&page.id)).collect();
            let recipe = pages.and_then(|pages| Recipe::parse(pages.into_iter().flatten().copied().collect()).ok());
            match recipe {
                Some(recipe) => {
                    task.recipe = Some(recipe);
                    self.plan_content(&mut task)?;
                }
                None => self.fetchable.push_back(path.clone()),
            }
        }
        self.tasks.insert(path.clone(), task);
        Ok(())
    }

    fn request_of(&mut self, peer: DeviceId, request: u64) -> Option<&mut Request> {
        self.requests.get_mut(&request).filter(|r| r.peer == peer)
    }

    pub(super) fn handle_chunk(
        &mut self,
        now: Now,
        peer: DeviceId,
        header: ChunkHeader,
        chunk: VerifiedChunk,
    ) -> Result<(), I::Error> {
        let Some(Request { what: Asked::Chunks { items, left, .. }, .. }) = self.request_of(peer, header.request)
        else {
            return Ok(());
        };
        let Some(item) = items.get_mut(usize::from(header.item)) else {
            self.misbehaved(peer, "a chunk that was not asked for");
            return Ok(());
        };
        let Some((offset, wanted)) = item.chunks.remove(&header.chunk) else {
            self.misbehaved(peer, "a chunk that was not asked for");
            return Ok(());
        };
        *left -= 1;
        let (path, id, is_last) = (item.path.clone(), item.task, *left == 0);
        if is_last {
            self.close_request(header.request);
        }
        let is_right = chunk.id() == wanted.id && chunk.bytes().len() == wanted.len as usize;
        if !is_right {
            // Its file changed under its hands, or it lies; either way it does not have this content.
            self.handle_lost(&path, id, &[header.chunk]);
            self.drop_provider(now, peer, &path, id);
            return Ok(());
        }
        let Some(task) = self.asker(&path, id) else {
            return Ok(());
        };
        if let Step::Chunks { asked, staging, .. } = &mut task.step
            && asked.remove(&header.chunk)
        {
            staging.insert(header.chunk);
            let stage = task.stage;
            self.order_stage(stage, Output::Stage(stage, header.chunk, offset, chunk));
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.received_bytes += u64::from(wanted.len);
            }
        }
        Ok(())
    }

    pub(super) fn handle_missing(&mut self, now: Now, peer: DeviceId, request: u64, item: u16) -> Result<(), I::Error> {
        let Some(open) = self.request_of(peer, request) else {
            return Ok(());
        };
        match &mut open.what {
            Asked::Recipe(path, task) | Asked::Pages { path, task, .. } => {
                let (path, id) = (path.clone(), *task);
                self.close_request(request);
                self.ask_anew(&path, id);
                self.drop_provider(now, peer, &path, id);
                Ok(())
            }
            Asked::Chunks { items, left, .. } => {
                let Some(item) = items.get_mut(usize::from(item)) else {
                    return Ok(());
                };
                let lost: Vec<_> = std::mem::take(&mut item.chunks).into_keys().collect();
                *left -= lost.len();
                let (path, id, is_last) = (item.path.clone(), item.task, *left == 0);
                if is_last {
                    self.close_request(request);
                }
                self.handle_lost(&path, id, &lost);
                self.drop_provider(now, peer, &path, id);
                Ok(())
            }
        }
    }

    /// These chunks will not come from the peer that was asked.
    fn handle_lost(&mut self, path: &RelPath, id: TaskId, chunks: &[u32]) {
        let Some(task) = self.asker(path, id) else {
            return;
        };
        if let Step::Chunks { todo, asked, .. } = &mut task.step {
            todo.extend(chunks.iter().filter(|chunk| asked.remove(*chunk)));
            todo.sort_unstable_by(|a, b| b.cmp(a));
            self.fetchable.push_back(path.clone());
        }
    }

    /// A peer does not have what it said. It will say what it has instead; until then the path rests.
    fn drop_provider(&mut self, now: Now, peer: DeviceId, path: &RelPath, id: TaskId) {
        if let Some(task) = self.asker(path, id) {
            task.providers.remove(&peer);
            self.give_up_if_alone(now, path);
        }
    }

    /// A task that cannot go on without somebody who has the content, and for which nobody is left,
    /// rests until there is news.
    pub(super) fn give_up_if_alone(&mut self, now: Now, path: &RelPath) {
        let Some(task) = self.tasks.get(path) else {
            return;
        };
        if task.providers.is_empty() && task.needs_provider() {
            if task.heals {
                self.verify.nobody_heals(path);
            }
            self.drop_task(path);
            self.put_off(now, path, false, PEER_PAUSE_MAX);
        }
    }

    // ------------------------------------------------------------------------------------ serving

    /// Returns the file that a peer asks for, if this device holds just that, and it is not known to be damaged.
    fn held(&self, path: &RelPath, content: ContentId) -> Result<Option<Local>, I::Error> {
        let local = self.index.local(path)?.filter(|_| !self.verify.is_damaged(path));
        Ok(local.filter(|l| !l.ignored && l.record.body.file().is_some_and(|file| file.content == content)))
    }

    pub(super) fn serve_recipe(
        &mut self,
        peer: DeviceId,
        want: &WantRecipe,
        pages: Option<&[u32]>,
    ) -> Result<(), I::Error> {
        let request = want.request;
        let recipe = match self.held(&want.path, want.content)? {
            Some(_) => self.index.recipe(&want.path)?,
            None => None,
        };
        let Some(recipe) = recipe else {
            self.outputs.push_back(Output::Send(peer, Message::Missing { request, item: 0 }));
            return Ok(());
        };
        let Some(pages) = pages else {
            self.outputs.push_back(Output::Send(peer, Message::Recipe { request, pages: recipe.root() }));
            return Ok(());
        };
        let all: Vec<_> = recipe.pages().collect();
        for page in pages {
            match all.get(*page as usize) {
                Some(chunks) => {
                    let message = Message::Page { request, page: *page, chunks: chunks.to_vec() };
                    self.outputs.push_back(Output::Send(peer, message));
                }
                None => self.misbehaved(peer, "a request for a page that does not exist"),
            }
        }
        Ok(())
    }

    pub(super) fn serve(&mut self, peer: DeviceId, want: Want) -> Result<(), I::Error> {
        let request = want.request;
        let (mut items, mut kept_items) = (Vec::new(), Vec::new());
        for (number, item) in (0u16..).zip(want.items) {
            let fits = |size: u64| item.runs.iter().all(|run| run.offset + run.bytes() <= size);
            let held = self.held(&item.path, item.content)?;
            let size = held.as_ref().and_then(|l| l.record.body.file()).map_or(0, |file| file.size);
            if let Some(stat) = held.and_then(|local| local.stat).filter(|_| fits(size)) {
                items.push((number, item.path, stat, item.runs));
                continue;
            }
            let kept = self.kept_with(&item.path, item.content)?;
            let size = kept.as_ref().and_then(|kept| kept.body.file()).map_or(0, |file| file.size);
            match kept.and_then(|kept| kept.file).filter(|_| fits(size)) {
                Some(file) => kept_items.push((number, file, size, item.runs)),
                None => self.outputs.push_back(Output::Send(peer, Message::Missing { request, item: number })),
            }
        }
        if !items.is_empty() {
            self.outputs.push_back(Output::Serve { peer, request, items });
        }
        if !kept_items.is_empty() {
            self.outputs.push_back(Output::ServeKept { peer, request, items: kept_items });
        }
        Ok(())
    }
}

/// Returns the most chunks that a file of this size is cut into. A recipe of more is nobody's honest one,
/// and is refused before its pages are asked for and kept.
fn chunks_max(size: u64) -> u64 {
    size / chunk_len_min(size) as u64 + limits::PAGE_CHUNKS_MAX as u64
}

/// Takes chunks off the end of `todo`, as many bytes and chunks as there is room for but at least one, joined
/// to runs.
fn take_runs(
    recipe: &Recipe,
    todo: &mut Vec<u32>,
    (bytes_max, chunks_max): (u64, usize),
    taken: &mut BTreeMap<u32, (u64, ChunkRef)>,
) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut bytes = 0;
    let mut offsets = OffsetCursor { recipe, index: 0, offset: 0 };
    while let Some(&index) = todo.last() {
        let Some(chunk) = recipe.chunks().get(index as usize).copied() else {
            todo.pop();
            continue;
        };
        if bytes > 0 && (bytes + u64::from(chunk.len) > bytes_max || taken.len() >= chunks_max) {
            break;
        }
        todo.pop();
        let offset = offsets.seek(index);
        bytes += u64::from(chunk.len);
        taken.insert(index, (offset, chunk));
        match runs.last_mut() {
            Some(run) if run.first + run.lens.len() as u32 == index => run.lens.push(chunk.len),
            _ => runs.push(Run { first: index, offset, lens: vec![chunk.len] }),
        }
    }
    runs
}

/// Finds the offsets of chunks whose indices rise, adding each length once.
struct OffsetCursor<'a> {
    recipe: &'a Recipe,
    index: u32,
    offset: u64,
}

impl OffsetCursor<'_> {
    fn seek(&mut self, index: u32) -> u64 {
        if index < self.index {
            (self.index, self.offset) = (0, 0);
        }
        let skipped = &self.recipe.chunks()[self.index as usize..index as usize];
        self.offset += skipped.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
        self.index = index;
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{ChunkId, FolderId};

    #[test]
    fn a_request_for_chunks_of_one_byte_fits_a_frame() {
        let chunk = ChunkRef { id: ChunkId([1; 32]), len: 1 };
        let recipe = Recipe::parse(vec![chunk; 1 << 20]).unwrap();
        // Every other one lies here, so that no two of the others make one run.
        let mut todo: Vec<u32> = (0..1 << 20).step_by(2).rev().collect();
        let mut taken = BTreeMap::new();
        let runs = take_runs(&recipe, &mut todo, (REQUEST_BYTES, REQUEST_CHUNKS), &mut taken);
        assert_eq!(runs.len(), taken.len());
        let item = WantItem { path: RelPath::parse(b"f").unwrap(), content: ContentId([2; 32]), runs };
        let (header, body) = Message::Want(Want { request: 1, folder: FolderId([3; 16]), items: vec![item] }).encode();
        assert!(header.len() + body.len() < limits::FRAME_LEN_MAX / 2, "{}", body.len());
        let (next, _) = taken.last_key_value().map(|(last, at)| (last + 2, at)).unwrap();
        assert_eq!(todo.last(), Some(&next), "the rest is asked for next");
    }
}
