//! Paths inside a synced folder: bytes, as the disk has them.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::model::limits::{NAME_LEN_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX};

/// The name of the one directory in a folder's root that belongs to the program itself.
pub const OWN_DIR: &[u8] = b".kinfold";

/// A path inside a synced folder: relative, `/`-separated, never escaping its root, never empty.
///
/// Invariant: no component is empty, `.`, `..`, longer than [`NAME_LEN_MAX`] or contains NUL; the
/// first is not [`OWN_DIR`]; at most [`PATH_DEPTH_MAX`] components and [`PATH_LEN_MAX`] bytes.
///
/// Names are bytes and nothing else: no normalisation, no folding of case, no encoding. The order
/// is by components, so that a directory comes right before all that lies below it.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct RelPath(Box<[u8]>);

/// Why some bytes are not a path inside a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// The path has no component at all.
    #[error("the path is empty")]
    Empty,
    /// The path begins with `/`, ends with it, or has two in a row.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("the path has a `.` or `..` component")]
    Dots,
    /// A component contains NUL, or a name contains `/`.
    #[error("the path contains a byte that no file system allows")]
    ForbiddenByte,
    /// A component, or the whole, is too long, or nested too deep.
    #[error("the path is too long or nested too deep")]
    TooLong,
    /// The path lies in the program's own directory.
    #[error("the path lies in .kinfold, which never syncs")]
    Reserved,
}

impl RelPath {
    /// Parses a path that came from a peer, the disk, a person, or the index.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > PATH_LEN_MAX {
            return Err(PathError::TooLong);
        }
        let mut depth = 0;
        for (n, name) in bytes.split(|b| *b == b'/').enumerate() {
            check_name(name)?;
            if n == 0 && name == OWN_DIR {
                return Err(PathError::Reserved);
            }
            depth += 1;
        }
        if depth > PATH_DEPTH_MAX {
            return Err(PathError::TooLong);
        }
        Ok(Self(bytes.into()))
    }

    /// Returns the path of `name` inside the directory `dir`, or in the root for `None`.
    pub fn child(dir: Option<&Self>, name: &[u8]) -> Result<Self, PathError> {
        if name.contains(&b'/') {
            return Err(PathError::ForbiddenByte);
        }
        match dir {
            None => Self::parse(name),
            Some(dir) => {
                let mut bytes = Vec::with_capacity(dir.0.len() + 1 + name.len());
                bytes.extend_from_slice(&dir.0);
                bytes.push(b'/');
                bytes.extend_from_slice(name);
                Self::parse(&bytes)
            }
        }
    }

    /// Returns the bytes of the path, `/` between components.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path as the system calls want it, relative to the folder's root.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Returns the last component.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or(&self.0)
    }

    /// Returns the directory that holds this path, or `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let at = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..at].into()))
    }

    /// Returns all directories above this path, the nearest first, without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + use<> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// Returns the components in order.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// Returns whether this path lies below `dir` (and is not `dir` itself).
    pub fn is_below(&self, dir: &Self) -> bool {
        self.0.len() > dir.0.len() && self.0.starts_with(&dir.0) && self.0[dir.0.len()] == b'/'
    }

    /// Returns a path beside this one, with another last component.
    pub fn with_name(&self, name: &[u8]) -> Result<Self, PathError> {
        Self::child(self.parent().as_ref(), name)
    }
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::EmptyComponent),
        b"." | b".." => Err(PathError::Dots),
        _ if name.len() > NAME_LEN_MAX => Err(PathError::TooLong),
        _ if name.contains(&0) => Err(PathError::ForbiddenByte),
        _ => Ok(()),
    }
}

impl Ord for RelPath {
    /// By components: what lies in a directory comes right after it, whatever bytes names begin with.
    ///
    /// No name holds a zero byte, so this is the order of the bytes with zero in the place of `/`.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.as_bytes(), other.as_bytes());
        let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
        // Paths that are compared most often share a long beginning, which goes by words.
        let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
        let shared = words.take_while(|(x, y)| x == y).count() * 8;
        match a[shared..].iter().zip(&b[shared..]).find(|(x, y)| x != y) {
            Some((x, y)) => rank(*x).cmp(&rank(*y)),
            None => a.len().cmp(&b.len()),
        }
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Writes the path for people: control characters, bytes that are not UTF-8 and characters that
/// turn the direction of writing are escaped, so that a name can never steer a terminal or a log.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(&self.0, f)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// Some bytes for people, escaped as paths are.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self.0, f)
    }
}

fn write_escaped(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write as _;
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            if c == '\\' || c.is_control() || steers_direction(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        for byte in part.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Characters of Unicode's bidirectional algorithm (UAX #9) and invisible ones that hide in names.
fn steers_direction(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_could_escape_a_folder_is_refused() {
        for (text, why) in [
            ("", PathError::Empty),
            ("/", PathError::EmptyComponent),
            ("/etc/passwd", PathError::EmptyComponent),
            ("a//b", PathError::EmptyComponent),
            ("a/", PathError::EmptyComponent),
            (".", PathError::Dots),
            ("..", PathError::Dots),
            ("a/../b", PathError::Dots),
            ("a/.", PathError::Dots),
            ("a\0b", PathError::ForbiddenByte),
            (".kinfold", PathError::Reserved),
            (".kinfold/marker", PathError::Reserved),
        ] {
            assert_eq!(RelPath::parse(text.as_bytes()), Err(why), "{text:?}");
        }
        assert_eq!(RelPath::parse(&[b'n'; 256]), Err(PathError::TooLong));
        assert_eq!(RelPath::parse(&b"a/".repeat(2047)), Err(PathError::EmptyComponent));
        assert_eq!(RelPath::parse(&b"d/".repeat(600)[..1199]), Err(PathError::TooLong));
    }

    #[test]
    fn odd_names_that_file_systems_allow_are_paths() {
        for name in [&b"new\nline"[..], b"not \xff utf-8", b" ", b"...", b"a\\b", b"-x", b".kinfold2", &[b'n'; 255]] {
            assert_eq!(RelPath::parse(name).unwrap().as_bytes(), name);
        }
        assert!(RelPath::parse(b"a/.kinfold").is_ok());
    }

    #[test]
    fn a_directory_comes_right_before_what_lies_below_it() {
        let mut paths = [path("a.b"), path("a/c"), path("a"), path("a-"), path("a/b/c"), path("b")];
        paths.sort();
        assert_eq!(paths, [path("a"), path("a/b/c"), path("a/c"), path("a-"), path("a.b"), path("b")]);
    }

    #[test]
    fn a_name_cannot_steer_a_terminal() {
        let shown = RelPath::parse(b"\x1b[2J\n\xe2\x80\xaetxt\xff").unwrap().to_string();
        assert_eq!(shown, "\\u{1b}[2J\\n\\u{202e}txt\\xff");
    }

    #[test]
    fn parents_and_children_are_inverse() {
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), None);
        assert_eq!(path("a/b").ancestors().collect::<Vec<_>>(), [path("a")]);
        assert!(path("a/b").is_below(&path("a")));
        assert!(!path("ab").is_below(&path("a")));
        assert!(!path("a").is_below(&path("a")));
        assert!(RelPath::child(Some(&path("a")), b"../x").is_err());
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_bytes_with_zero_for_slash(
            shared in "[a-c/]{0,20}", a in "[a-c/ -]{0,12}", b in "[a-c/ -]{0,12}",
        ) {
            let paths = [&a, &b].map(|end| RelPath::parse(format!("x{shared}{end}").as_bytes()));
            if let [Ok(a), Ok(b)] = paths {
                let key = |path: &RelPath| path.as_bytes().iter().map(|b| if *b == b'/' { 0 } else { *b }).collect::<Vec<_>>();
                prop_assert_eq!(a.cmp(&b), key(&a).cmp(&key(&b)));
            }
        }

        #[test]
        fn what_parses_stays_inside_and_survives_a_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(path) = RelPath::parse(&bytes) {
                prop_assert_eq!(path.as_bytes(), &bytes[..]);
                prop_assert!(!path.as_path().is_absolute());
                let normal = path.as_path().components().all(|c| matches!(c, std::path::Component::Normal(_)));
                prop_assert!(normal);
                prop_assert_eq!(RelPath::child(path.parent().as_ref(), path.name()), Ok(path));
            }
        }
    }
}
