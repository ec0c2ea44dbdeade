//! Where the program keeps its own files.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use etcetera::BaseStrategy;

const SOCKET_NAME: &str = "kinfold.sock";
/// Longest path of a Unix socket, in bytes (`sun_path` of Linux less the closing NUL).
const SOCKET_PATH_LEN_MAX: usize = 107;

/// The places of the configuration, the state and the control socket. All absolute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Paths {
    /// The configuration, for people.
    pub config_file: PathBuf,
    /// Identity, secrets and index files, for the program alone.
    pub state_dir: PathBuf,
    /// The socket of the control API.
    pub socket: PathBuf,
}

/// Why the places cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// `HOME` is not set, and there is no other way to tell.
    #[error("cannot tell where your home directory is")]
    NoHome,
    /// The directory given cannot be made absolute.
    #[error("cannot use {} as home", .path.display())]
    Home {
        /// What was given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The system allows no such long path for a socket.
    #[error(
        "the path of the control socket is too long: {} has {} bytes, the system allows {}",
        .path.display(), .path.as_os_str().len(), SOCKET_PATH_LEN_MAX
    )]
    SocketTooLong {
        /// The path that was chosen.
        path: PathBuf,
    },
}

impl PathsError {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoHome => "set HOME, or give --home DIR",
            Self::Home { .. } => "give the path of a directory",
            Self::SocketTooLong { .. } => "choose a shorter --home, or set XDG_RUNTIME_DIR to a shorter directory",
        }
    }
}

impl Paths {
    /// Finds the places: all below `home` where one is given, else by the XDG base directories.
    pub fn resolve(home: Option<&Path>) -> Result<Self, PathsError> {
        match home {
            Some(home) => {
                let source = |source| PathsError::Home { path: home.to_owned(), source };
                Self::below(&std::path::absolute(home).map_err(source)?)
            }
            None => {
                let xdg = etcetera::base_strategy::Xdg::new().map_err(|_| PathsError::NoHome)?;
                let state_dir = xdg.state_dir().ok_or(PathsError::NoHome)?.join("kinfold");
                let socket = choose_socket(xdg.runtime_dir().as_deref(), &state_dir);
                Self { config_file: xdg.config_dir().join("kinfold/config.toml"), state_dir, socket }.checked()
            }
        }
    }

    /// Puts everything below the absolute directory `home`.
    pub fn below(home: &Path) -> Result<Self, PathsError> {
        Self { config_file: home.join("config.toml"), state_dir: home.join("state"), socket: home.join("kinfold.sock") }
            .checked()
    }

    fn checked(self) -> Result<Self, PathsError> {
        if self.socket.as_os_str().as_bytes().len() > SOCKET_PATH_LEN_MAX {
            return Err(PathsError::SocketTooLong { path: self.socket });
        }
        Ok(self)
    }

    /// Returns where the device's identity lies.
    pub fn identity(&self) -> PathBuf {
        self.state_dir.join("identity")
    }

    /// Returns where the identity lies that the device is going to have, while it changes its key.
    pub fn next_identity(&self) -> PathBuf {
        self.state_dir.join("identity.next")
    }

    /// Returns where it is noted how far that has come.
    pub fn rotation(&self) -> PathBuf {
        self.state_dir.join("rotation.json")
    }

    /// Returns the directory of the configuration.
    pub fn config_dir(&self) -> &Path {
        self.config_file.parent().unwrap_or(&self.config_file)
    }
}

/// Returns where the socket of the control API lies: in the runtime directory, or where there is none in the
/// state directory. So it is, too, for a daemon that was started before its user logged in; whoever logs in
/// then has a runtime directory, and finds the socket all the same.
fn choose_socket(runtime_dir: Option<&Path>, state_dir: &Path) -> PathBuf {
    let early = state_dir.join(SOCKET_NAME);
    match runtime_dir.map(|dir| dir.join(SOCKET_NAME)) {
        Some(socket) if socket.exists() || !early.exists() => socket,
        _ => early,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_home_holds_everything() {
        let paths = Paths::below(Path::new("/h")).unwrap();
        assert_eq!(paths.config_file, Path::new("/h/config.toml"));
        assert_eq!(paths.state_dir, Path::new("/h/state"));
        assert_eq!(paths.socket, Path::new("/h/kinfold.sock"));
    }

    #[test]
    fn a_daemon_that_was_started_before_the_login_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, state) = (dir.path().join("run"), dir.path().join("state"));
        std::fs::create_dir_all(&runtime).unwrap();
        std::fs::create_dir_all(&state).unwrap();
        assert_eq!(choose_socket(Some(&runtime), &state), runtime.join(SOCKET_NAME));
        assert_eq!(choose_socket(None, &state), state.join(SOCKET_NAME));
        std::fs::write(state.join(SOCKET_NAME), "").unwrap();
        assert_eq!(choose_socket(Some(&runtime), &state), state.join(SOCKET_NAME));
        std::fs::write(runtime.join(SOCKET_NAME), "").unwrap();
        assert_eq!(choose_socket(Some(&runtime), &state), runtime.join(SOCKET_NAME));
    }

    #[test]
    fn a_socket_path_that_the_system_cannot_hold_is_refused() {
        let fits = format!("/{}", "h".repeat(SOCKET_PATH_LEN_MAX - "//kinfold.sock".len()));
        assert!(Paths::below(Path::new(&fits)).is_ok());
        let error = Paths::below(Path::new(&format!("{fits}h"))).unwrap_err();
        assert!(error.to_string().contains("108 bytes, the system allows 107"), "{error}");
    }
}
