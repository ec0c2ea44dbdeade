//! Failures as a person sees them: `error: …` for what went wrong, `hint: …` for what to do.

use std::error::Error;
use std::io;

use crate::cli::exit::Exit;
use crate::cli::output::printable;
use crate::config::error::ConfigError;
use crate::config::error::EditError;
use crate::config::paths::PathsError;
use crate::control::client::ControlError;
use crate::daemon::Unable;
use crate::keys::key_file::KeyError;
use crate::keys::passphrase::PassphraseError;
use crate::keys::sealed::SealError;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// Makes a failure that has no advice.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Makes one that ends with [`Exit::Failed`] from an error and all its causes.
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::new(Exit::Failed, message)
    }

    /// The reader of our output went away. That is no failure of ours, and nobody is left to be told.
    pub fn output_closed() -> Self {
        Self::new(Exit::Done, "")
    }

    /// What went wrong was told by a process of ours.
    pub fn said_already(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Puts what was being done before the message.
    #[must_use]
    pub fn while_doing(self, doing: &str) -> Self {
        Self { message: format!("{doing}: {}", self.message), ..self }
    }

    /// Ends otherwise than with [`Exit::Failed`].
    #[must_use]
    pub fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Returns how the program ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Returns what went wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the lines for a terminal; none where nothing went wrong, or it was told already.
    pub fn lines(&self) -> Vec<String> {
        if self.exit == Exit::Done || self.message.is_empty() {
            return vec![];
        }
        let error = format!("error: {}", printable(&self.message));
        let hint = self.hint.iter().map(|hint| format!("hint: {}", printable(hint)));
        std::iter::once(error).chain(hint).collect()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = error.hint();
        Self { hint, ..Self::from_error(&error) }
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        ConfigError::Edit(error).into()
    }
}

impl From<PathsError> for Failure {
    fn from(error: PathsError) -> Self {
        let hint = error.hint();
        Self::from_error(&error).with_hint(hint)
    }
}

impl From<PassphraseError> for Failure {
    fn from(error: PassphraseError) -> Self {
        Self::from_error(&error).with_hint(error.hint())
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let exit = match error {
            ControlError::NoDaemon { .. } => Exit::NoDaemon,
            ControlError::Timeout(_) => Exit::Timeout,
            _ => Exit::Failed,
        };
        let hint = error.hint();
        Self { exit, hint, ..Self::from_error(&error) }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let exit = match error {
            KeyError::Seal { source: SealError::Wrong, .. } => Exit::Locked,
            _ => Exit::Failed,
        };
        let hint = error.hint();
        Self { exit, hint, ..Self::from_error(&error) }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let of_config = error.downcast_ref::<ConfigError>().and_then(ConfigError::hint);
        let hint = of_config.or_else(|| Some(error.downcast_ref::<Unable>()?.advice.to_owned()));
        Self { hint, ..Self::new(Exit::Failed, format!("{error:#}")) }
    }
}

/// What writing to standard output can end in.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::output_closed(),
            _ => Self::from_error(&error)
                .while_doing("cannot write the output")
                .with_hint("make room where it goes, or send it elsewhere"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_message_cannot_steer_the_terminal() {
        let failure = Failure::new(Exit::Failed, "no folder `\x1b[2J`").with_hint("a\nb");
        assert_eq!(failure.lines(), ["error: no folder `\\u{1b}[2J`", "hint: a\\nb"]);
    }

    #[test]
    fn causes_are_told_and_a_reader_that_left_is_not() {
        let cause = io::Error::other("disk on fire");
        let error = ConfigError::Io { doing: "read", path: "/c".into(), source: cause };
        assert_eq!(Failure::from(error).message(), "cannot read /c: disk on fire");
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).lines().is_empty());
    }
}
