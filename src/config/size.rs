//! Sizes as people write them: `20 GiB`, `500 MB`, `10%`.

use std::fmt;

use crate::config::error::Advice;

/// Up to how much space a folder's history may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HistorySize {
    /// So many hundredths of the disk that the folder lies on; 1 to 100.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

/// A text is not a size.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a size")]
pub struct SizeError(String);

impl Advice for SizeError {
    fn advice(&self) -> &'static str {
        "write it like \"10%\" (of the disk), \"20 GiB\" or \"500 MB\""
    }
}

const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("kb", 1000),
    ("mb", 1000 * 1000),
    ("gb", 1000 * 1000 * 1000),
    ("tb", 1000 * 1000 * 1000 * 1000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

impl HistorySize {
    /// Parses a percentage or a number of bytes, with or without a unit.
    pub fn parse(text: &str) -> Result<Self, SizeError> {
        let refused = || SizeError(text.to_owned());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = text[..digits].parse().map_err(|_| refused())?;
        let unit = text[digits..].trim().to_ascii_lowercase();
        if unit == "%" {
            return u8::try_from(number)
                .ok()
                .filter(|percent| (1..=100).contains(percent))
                .map(Self::Percent)
                .ok_or_else(refused);
        }
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
        number.checked_mul(*factor).map(Self::Bytes).ok_or_else(refused)
    }
}

impl fmt::Display for HistorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, size) in [
            ("10%", HistorySize::Percent(10)),
            ("100 %", HistorySize::Percent(100)),
            ("0", HistorySize::Bytes(0)),
            ("20 GiB", HistorySize::Bytes(20 << 30)),
            ("20gib", HistorySize::Bytes(20 << 30)),
            ("500MB", HistorySize::Bytes(500_000_000)),
        ] {
            assert_eq!(HistorySize::parse(text), Ok(size), "{text:?}");
            assert_eq!(HistorySize::parse(&size.to_string()), Ok(size));
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "%", "0%", "101%", "-1", "1.5 GiB", "10 stones", "99999999999999999999", "20000000 TiB"] {
            assert_eq!(HistorySize::parse(text), Err(SizeError(text.to_owned())));
        }
    }
}
