//! What becomes of texts that were edited apart, as people write it: `ask`, `text`, `off`.

use crate::config::error::Advice;
use crate::model::rights::Right;

/// What becomes of texts that were edited apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Merge {
    /// Nothing is kept for merging.
    Off,
    /// A person may have them merged.
    #[default]
    Ask,
    /// They are merged at once where the edits do not overlap.
    Text,
}

/// A text does not say what becomes of conflicts.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no way to merge")]
pub struct MergeError(String);

impl Advice for MergeError {
    fn advice(&self) -> &'static str {
        "write \"ask\", \"text\" to merge texts whose edits do not overlap at once, or \"off\""
    }
}

impl Merge {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Ask => "ask",
            Self::Text => "text",
        }
    }

    /// Returns what holds on a device with this right: one that may not write would merge into what no other takes.
    pub fn under(self, right: Option<Right>) -> Self {
        match (self, right) {
            (Self::Text, None | Some(Right::Reader | Right::Adder)) => Self::Ask,
            _ => self,
        }
    }
}

/// Parses the setting.
///
/// # Errors
/// The text is none of the three words.
pub fn parse(text: &str) -> Result<Merge, MergeError> {
    let word = text.trim();
    let known = [Merge::Off, Merge::Ask, Merge::Text].into_iter().find(|merge| merge.as_str() == word);
    known.ok_or_else(|| MergeError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_write_does_not_merge_unasked() {
        for right in [None, Some(Right::Reader), Some(Right::Adder)] {
            assert_eq!((Merge::Text.under(right), Merge::Off.under(right)), (Merge::Ask, Merge::Off));
        }
        assert_eq!(Merge::Text.under(Some(Right::Writer)), Merge::Text);
    }

    #[test]
    fn the_three_words_are_understood_and_nothing_else() {
        for merge in [Merge::Off, Merge::Ask, Merge::Text] {
            assert_eq!(parse(&format!(" {} ", merge.as_str())), Ok(merge));
        }
        for text in ["", "on", "true", "Text", "all"] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
            assert!(error.advice().contains("\"text\""), "{}", error.advice());
        }
    }
}
