//! What devices tell each other of the past: which former versions each keeps.
//!
//! The content of one is asked for with a `Want`, as that of any file; see `wire/mod.rs`.

use serde::{Deserialize, Serialize};

use crate::model::id::{DeviceTag, FolderId};
use crate::model::limits;
use crate::model::path::RelPath;
use crate::model::record::Body;
use crate::wire::message::raw::RecordBody;
use crate::wire::message::{DecodeError, bounded, path};

/// A question for the former versions of a path, and of all below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantHistory {
    /// Names the question in its answer.
    pub request: u64,
    /// Which folder.
    pub folder: FolderId,
    /// Which path; `None`: the whole folder.
    pub top: Option<RelPath>,
    /// Where the last answer ended: its last path, and when that version was put aside.
    pub after: Option<(RelPath, i64)>,
}

/// A page of former versions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct History {
    /// The question that this answers.
    pub request: u64,
    /// In the order of paths, and of one path the oldest first.
    pub versions: Vec<Former>,
    /// Whether there are more after them.
    pub more: bool,
}

/// A former version that a device keeps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Former {
    /// Where it lay.
    pub path: RelPath,
    /// What it was: a file or a symbolic link.
    pub body: Body,
    /// Who had made it.
    pub by: DeviceTag,
    /// From when on it lay there, in nanoseconds since 1970, by the clock of the device that keeps it.
    pub since_ns: i64,
    /// When it was put aside there.
    pub until_ns: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RawWantHistory {
    request: u64,
    folder: [u8; 16],
    top: Option<Vec<u8>>,
    after: Option<(Vec<u8>, i64)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RawFormer {
    path: Vec<u8>,
    body: RecordBody,
    by: [u8; 5],
    since_ns: i64,
    until_ns: i64,
}

impl From<&WantHistory> for RawWantHistory {
    fn from(want: &WantHistory) -> Self {
        let bytes = |path: &RelPath| path.as_bytes().to_vec();
        Self {
            request: want.request,
            folder: want.folder.0,
            top: want.top.as_ref().map(bytes),
            after: want.after.as_ref().map(|(path, until_ns)| (bytes(path), *until_ns)),
        }
    }
}

impl RawWantHistory {
    pub(super) fn check(self) -> Result<WantHistory, DecodeError> {
        let after = match self.after {
            Some((at, until_ns)) => Some((path(&at)?, until_ns)),
            None => None,
        };
        let top = self.top.map(|top| path(&top)).transpose()?;
        Ok(WantHistory { request: self.request, folder: FolderId(self.folder), top, after })
    }
}

impl From<&Former> for RawFormer {
    fn from(former: &Former) -> Self {
        Self {
            path: former.path.as_bytes().to_vec(),
            body: RecordBody::from(&former.body),
            by: former.by.0,
            since_ns: former.since_ns,
            until_ns: former.until_ns,
        }
    }
}

/// Checks a page, of which no more was allocated than arrived.
pub(super) fn check_page(versions: Vec<RawFormer>) -> Result<Vec<Former>, DecodeError> {
    bounded(versions.len(), limits::HISTORY_PAGE_MAX, "number of former versions")?;
    versions.into_iter().map(RawFormer::check).collect()
}

impl RawFormer {
    fn check(self) -> Result<Former, DecodeError> {
        let body = self.body.check()?;
        if !matches!(body, Body::File(_) | Body::Symlink { .. }) {
            return Err(DecodeError::Impossible("former version"));
        }
        let (by, since_ns, until_ns) = (DeviceTag(self.by), self.since_ns, self.until_ns);
        Ok(Former { path: path(&self.path)?, body, by, since_ns, until_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::ContentId;
    use crate::model::record::FileBody;
    use crate::wire::Message;

    fn rel(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn former(path: RelPath, body: Body) -> Former {
        Former { path, body, by: DeviceTag([3; 5]), since_ns: -7, until_ns: i64::MAX }
    }

    fn file(size: u64) -> Body {
        Body::File(FileBody { mode: 0o640, mtime_ns: -1, size, content: ContentId([5; 32]) })
    }

    fn told(versions: Vec<Former>) -> Message {
        Message::History(History { request: 9, versions, more: true })
    }

    fn decoded(message: &Message) -> Result<Option<Message>, DecodeError> {
        let (header, body) = message.encode();
        Message::decode(message.kind(), &header, &body)
    }

    #[test]
    fn questions_and_answers_about_the_past_survive_the_wire() {
        let link = Body::Symlink { target: (*b"there").into() };
        let folder = FolderId([1; 16]);
        let whole = WantHistory { request: 9, folder, top: None, after: None };
        let rest = WantHistory { top: Some(rel("a")), after: Some((rel("a/b"), -3)), ..whole.clone() };
        for message in [
            Message::WantHistory(whole),
            Message::WantHistory(rest),
            told(vec![former(rel("a/b"), file(0)), former(rel("l"), link)]),
            told(Vec::new()),
        ] {
            assert_eq!(decoded(&message), Ok(Some(message)));
        }
    }

    #[test]
    fn a_page_beyond_its_bound_is_refused_and_the_longest_within_it_fits_a_frame() {
        let deep = |n: usize| RelPath::parse(&[&vec![b'x'; 250][..]; 16].join(&b'/')[..4000 - n % 2]).unwrap();
        let target = vec![b't'; limits::SYMLINK_LEN_MAX].into_boxed_slice();
        let long = |n| former(deep(n), Body::Symlink { target: target.clone() });
        let page: Vec<_> = (0..limits::HISTORY_PAGE_MAX).map(long).collect();
        let (header, body) = told(page.clone()).encode();
        assert!(header.len() + body.len() < limits::FRAME_LEN_MAX, "{}", body.len());
        assert!(decoded(&told(page.clone())).is_ok());
        let beyond = told([page, vec![long(0)]].concat());
        assert_eq!(decoded(&beyond), Err(DecodeError::Impossible("number of former versions")));
    }

    #[test]
    fn what_no_history_keeps_is_refused() {
        for body in [Body::Tombstone, Body::Dir { mode: 0o755 }] {
            let refused = decoded(&told(vec![former(rel("a"), body)]));
            assert_eq!(refused, Err(DecodeError::Impossible("former version")));
        }
        let refused = decoded(&told(vec![former(rel("a"), file(1 << 63))]));
        assert_eq!(refused, Err(DecodeError::Impossible("size")));
    }
}
