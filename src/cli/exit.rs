//! Exit codes: the part of the command line that scripts go by.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// It was not understood.
    Usage = 2,
    /// What was waited for did not come.
    Timeout = 3,
    /// It did what was asked, and there is something for a person to decide.
    NeedsPerson = 4,
    /// It needs a running daemon, and there is none.
    NoDaemon = 5,
    /// The identity of this device is locked, and was not opened.
    Locked = 6,
    /// It is a daemon that is to be started again; only its keeper sees this.
    Again = crate::daemon::AGAIN as isize,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_that_scripts_rely_on() {
        let all =
            [Exit::Done, Exit::Failed, Exit::Usage, Exit::Timeout, Exit::NeedsPerson, Exit::NoDaemon, Exit::Locked];
        assert_eq!(all.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5, 6]);
    }
}
