//! What a folder does while the connection is metered, as people write it: `pause`, `go`.

use crate::config::error::Advice;

/// What a folder does while the connection is metered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum WhenMetered {
    /// It exchanges nothing.
    Pause,
    /// It goes on. The default, for what goes over the local network costs nobody anything, and without it there is no
    /// need to ask anybody.
    #[default]
    Go,
}

/// A text does not say what a folder does while the connection is metered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` says nothing of metered connections")]
pub struct MeteredError(String);

impl Advice for MeteredError {
    fn advice(&self) -> &'static str {
        "write \"pause\" to rest while there is one, or \"go\""
    }
}

impl WhenMetered {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Go => "go",
        }
    }
}

/// Parses the setting.
///
/// # Errors
/// The text is neither of the two words.
pub fn parse(text: &str) -> Result<WhenMetered, MeteredError> {
    let word = text.trim();
    let known = [WhenMetered::Pause, WhenMetered::Go].into_iter().find(|when| when.as_str() == word);
    known.ok_or_else(|| MeteredError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_words_are_understood_and_nothing_else() {
        for when in [WhenMetered::Pause, WhenMetered::Go] {
            assert_eq!(parse(&format!(" {} ", when.as_str())), Ok(when));
        }
        for text in ["", "on", "true", "Pause", "stop"] {
            let error = parse(text).unwrap_err();
            assert!(
                error.to_string().contains(&format!("`{text}`")) && error.advice().contains("\"pause\""),
                "{error}"
            );
        }
    }
}
