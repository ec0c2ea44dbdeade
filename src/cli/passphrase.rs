//! Asking for a passphrase: on the terminal, where it is not shown while it is typed, or a line of the standard input.

use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use rustix::termios;
use rustix::termios::LocalModes;
use rustix::termios::OptionalActions;
use rustix::termios::SpecialCodeIndex;
use rustix::termios::Termios;
use zeroize::Zeroizing;

use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::keys::passphrase::Passphrase;
use crate::keys::passphrase::PassphraseError;

/// Longest line that is typed, in bytes; what goes beyond it is not taken.
const TYPED_MAX: usize = 1024;

/// Reads a line of the standard input.
pub fn from_stdin() -> Result<Passphrase, Failure> {
    Passphrase::read_line(&mut Stdin).map_err(|error| failed(&error, "the standard input"))
}

/// Asks on the terminal that the standard input is.
pub fn ask(question: &str) -> Result<Passphrase, Failure> {
    let stdin = io::stdin();
    let hidden = Hidden::begin(stdin.as_fd())
        .map_err(|error| Failure::from_error(&io::Error::from(error)).while_doing("cannot ask on the terminal"))?;
    write!(io::stderr(), "{question}")?;
    let typed = type_line(&mut Stdin);
    drop(hidden);
    writeln!(io::stderr())?;
    let typed = typed?.ok_or_else(|| {
        Failure::new(Exit::Locked, "no passphrase was given").with_hint("nothing was changed; run it again")
    })?;
    Passphrase::new(typed).map_err(Failure::from)
}

/// Says what is wrong with a passphrase that was to come from somewhere.
pub fn failed(error: &PassphraseError, from: &str) -> Failure {
    Failure::from_error(error).while_doing(from).with_hint(error.hint())
}

/// Tells whoever is asked.
pub fn tell(line: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stderr(), "{line}")?)
}

/// The standard input without what std would keep of it, and without taking more than is asked for.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        rustix::io::retry_on_intr(|| rustix::io::read(io::stdin().as_fd(), &mut *buffer)).map_err(Into::into)
    }
}

/// A terminal that shows nothing and hands each key on, until this is dropped. Ctrl-C comes as a key, too: a signal
/// would end this process and leave the terminal mute.
struct Hidden<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn begin(terminal: BorrowedFd<'a>) -> rustix::io::Result<Self> {
        let before = termios::tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no care.
        termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before).ok();
    }
}

/// Reads what a person types up to the end of the line; `None` where they would rather not, or are gone.
fn type_line(keys: &mut impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const CTRL_C: u8 = 0x03;
    const CTRL_D: u8 = 0x04;
    const BACKSPACE: u8 = 0x08;
    const CTRL_U: u8 = 0x15;
    const DELETE: u8 = 0x7f;
    // As long as it can get, for a vector that grows leaves what it held behind.
    let mut line = Zeroizing::new(Vec::with_capacity(TYPED_MAX));
    let mut key = Zeroizing::new([0]);
    loop {
        if keys.read(key.as_mut_slice())? == 0 {
            return Ok(None);
        }
        match key[0] {
            b'\n' | b'\r' => return Ok(Some(line)),
            CTRL_C => return Ok(None),
            CTRL_D if line.is_empty() => return Ok(None),
            CTRL_D => {}
            CTRL_U => line.clear(),
            BACKSPACE | DELETE => {
                // A character of UTF-8 ends with its first byte, seen from behind.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if line.len() < TYPED_MAX => line.push(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> Option<String> {
        let line = type_line(&mut keys.as_bytes()).unwrap();
        line.map(|line| String::from_utf8(line.to_vec()).unwrap())
    }

    #[test]
    fn keys_make_a_line() {
        for (keys, line) in [
            ("secret\n", Some("secret")),
            ("secret\rmore", Some("secret")),
            ("sek\x7fcret\n", Some("secret")),
            ("pé\x08âsse\n", Some("pâsse")),
            ("\x7f\x7fx\n", Some("x")),
            ("wrong\x15right\n", Some("right")),
            ("a\x04b\n", Some("ab")),
            ("\n", Some("")),
            ("\x04", None),
            ("sec\x03ret\n", None),
            ("cut off", None),
        ] {
            assert_eq!(typed(keys).as_deref(), line, "{keys:?}");
        }
        assert_eq!(typed(&("x".repeat(3000) + "\n")).unwrap().len(), TYPED_MAX);
    }
}
