//! A passphrase: what a person remembers, or a service manager hands over.

use std::io;
use std::io::Read;

use zeroize::Zeroizing;

/// Longest passphrase, in bytes.
const LEN_MAX: usize = 1024;
/// Fewest characters of a new one. Whoever has the file can try as many as they like.
const CHARS_MIN: usize = 8;

/// A passphrase. Wiped on drop, and never printed.
///
/// It is the bytes that were typed: the same letters in another encoding are another passphrase.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// Why a text is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// There is nothing in it.
    #[error("there is no passphrase in it")]
    Empty,
    /// It has no end.
    #[error("a passphrase has at most {LEN_MAX} bytes")]
    TooLong,
    /// It could be found by trying.
    #[error("the passphrase is too short: it has to have {CHARS_MIN} characters")]
    TooShort,
    /// It could not be read.
    #[error("cannot read the passphrase")]
    Io(#[from] io::Error),
}

impl PassphraseError {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty => "the passphrase is the first line",
            Self::TooLong => "take a shorter one",
            Self::TooShort => "five words that nobody chose are good",
            Self::Io(_) => "name a file that holds the passphrase and that you may read",
        }
    }
}

impl Passphrase {
    /// Reads one line, or all where no line ends, and not a byte beyond it.
    pub fn read_line(from: &mut impl Read) -> Result<Self, PassphraseError> {
        // As long as it can get, for a vector that grows leaves what it held behind.
        let mut line = Zeroizing::new(Vec::with_capacity(LEN_MAX + 1));
        let mut byte = Zeroizing::new([0]);
        while from.read(byte.as_mut_slice())? == 1 && byte[0] != b'\n' {
            if line.len() > LEN_MAX {
                return Err(PassphraseError::TooLong);
            }
            line.push(byte[0]);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Self::new(line)
    }

    /// Takes what was typed.
    pub fn new(typed: Zeroizing<Vec<u8>>) -> Result<Self, PassphraseError> {
        match typed.len() {
            0 => Err(PassphraseError::Empty),
            1..=LEN_MAX => Ok(Self(typed)),
            _ => Err(PassphraseError::TooLong),
        }
    }

    /// Refuses a passphrase that is not to be put onto anything.
    pub fn check_new(self) -> Result<Self, PassphraseError> {
        let chars = String::from_utf8_lossy(&self.0).chars().count();
        if chars < CHARS_MIN { Err(PassphraseError::TooShort) } else { Ok(self) }
    }

    /// Returns whether both are the same; how long that takes tells nobody anything, for both are one person's.
    pub fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> (Result<Vec<u8>, String>, Vec<u8>) {
        let line = Passphrase::read_line(&mut bytes);
        (line.map(|line| line.as_bytes().to_vec()).map_err(|error| error.to_string()), bytes.to_vec())
    }

    #[test]
    fn it_is_one_line_and_what_comes_after_stays() {
        for (text, line, rest) in [
            ("secret words\nmore\n", "secret words", "more\n"),
            ("secret words\r\n", "secret words", ""),
            ("  no line end ", "  no line end ", ""),
            ("pâsse\n\n", "pâsse", "\n"),
        ] {
            assert_eq!(read(text.as_bytes()), (Ok(line.into()), rest.into()), "{text:?}");
        }
    }

    #[test]
    fn none_and_an_endless_one_are_refused() {
        assert!(read(b"").0.unwrap_err().contains("no passphrase"));
        assert!(read(b"\n").0.unwrap_err().contains("no passphrase"));
        assert!(read(&[b'x'; LEN_MAX]).0.is_ok());
        assert!(read(&[b'x'; LEN_MAX + 1]).0.unwrap_err().contains("at most 1024 bytes"));
        let (endless, rest) = read(&[b'x'; 3 * LEN_MAX]);
        assert!(endless.is_err() && rest.len() > LEN_MAX, "it was read to its end");
    }

    #[test]
    fn a_new_one_is_not_short_and_none_is_printed() {
        let new = |text: &str| Passphrase::new(Zeroizing::new(text.into())).unwrap().check_new();
        assert!(matches!(new("sevenso"), Err(PassphraseError::TooShort)));
        // Characters, not bytes.
        assert!(matches!(new("éééé"), Err(PassphraseError::TooShort)));
        assert!(new("éééééééé").is_ok());
        assert_eq!(format!("{:?}", new("eight ch").unwrap()), "Passphrase(…)");
    }
}
