//! `kinfold pair`: two devices meet by a short code, and share a folder at once.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::IsTerminal;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::folder;
use crate::cli::init;
use crate::cli::output;
use crate::cli::service;
use crate::cli::unlock;
use crate::cli::unlock::KeyArgs;
use crate::cli::up;
use crate::config::Accept;
use crate::config::Config;
use crate::config::Device;
use crate::config::address;
use crate::config::address::AddressError;
use crate::config::edit::Edit;
use crate::config::edit::NewFolder;
use crate::config::error::Advice;
use crate::config::error::EditError;
use crate::config::error::check_label;
use crate::config::load::real_path;
use crate::control::client::ControlError;
use crate::daemon::pairing;
use crate::keys::identity::Identity;
use crate::keys::invite;
use crate::keys::invite::Invite;
use crate::model::id::DeviceId;
use crate::model::id::FolderId;
use crate::model::limits::PAIRING_ADDRESSES_MAX;
use crate::model::rights::Right;

use pairing::Introduction;
use pairing::Meeting;
use pairing::PairError;
use pairing::SharedFolder;
use pairing::Window;

/// Longest line that is read as a code or link, in bytes.
const INVITE_LEN_MAX: u64 = 2048;

/// Arguments of `kinfold pair`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "kinfold pair [OPTIONS] [PATH]\n       kinfold pair [OPTIONS] CODE [PATH]")]
pub struct Args {
    /// The code that the other device shows, or `-` to be asked for it or its link; without it, this device shows one.
    /// Then the folder: here the one to share, there where to put it
    #[arg(value_name = "CODE] [PATH", num_args = 0..=2)]
    words: Vec<PathBuf>,

    /// Where the other device waits, HOST or HOST:PORT in numbers, if it is not found by itself
    #[arg(long, value_name = "ADDR", value_parser = window)]
    at: Option<SocketAddr>,

    /// What the other device may do in a folder of this one: reader, adder, writer or owner
    #[arg(long, default_value = "owner", value_parser = right)]
    right: Right,

    /// Agree without being asked; who joins with a code has said so by that
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    key: KeyArgs,

    /// Do not have the system start kinfold from now on, where it does not run yet
    #[arg(long)]
    no_service: bool,

    /// Print JSON: first how to join, where this device invites, then what came of it; needs --yes
    #[arg(long, requires = "yes")]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let (invite, path) = understood(&args.words)?;
    if args.at.is_some() && invite.is_none() {
        return Err(Failure::new(Exit::Usage, "--at is for the device that joins with a code")
            .with_hint("this one shows a code; give --at on the other"));
    }
    if !args.yes && invite.is_none() && !io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "nobody can be asked here whether to pair")
            .with_hint("add --yes where you trust whoever has the code"));
    }
    let own = init::set_up(context, None, &[])?;
    let config = context.config()?;
    let path = path.map(|path| folder::absolute(&path)).transpose()?;
    // What can be refused without the other device is, before a code is shown or a guess spent.
    if let Some(path) = &path
        && fs::metadata(path).is_ok_and(|meta| !meta.is_dir())
    {
        return Err(EditError::NotADirectory { path: path.clone() }.into());
    }
    let identity = unlock::identity(&context.paths, &args.key)?;
    // Whoever gives a code knows whose it is; whoever shows one has yet to see who comes.
    let asks = !args.yes && invite.is_none();
    let pairing = Pairing { context, args, own, config, asks, made: None };
    match invite {
        None => pairing.host(&identity, path.as_deref()),
        Some(invite) => {
            let invite = if invite == "-" { ask_invite()? } else { invite };
            let invite = invite.parse().map_err(|error: invite::InviteError| {
                Failure::from_error(&error).with_hint("`kinfold pair` shows it on the other device")
            })?;
            pairing.join(&identity, &invite, path.as_deref())
        }
    }
}

/// Tells the code and the path apart.
fn understood(words: &[PathBuf]) -> Result<(Option<String>, Option<PathBuf>), Failure> {
    let Some(first) = words.first() else { return Ok((None, None)) };
    let text = first.to_string_lossy();
    if invite::looks_like_link(&text) {
        return Err(Failure::new(Exit::Usage, "a link is a secret, and others on this machine can see a command line")
            .with_hint("run `kinfold pair - [PATH]` and paste it there"));
    }
    if text == "-" || invite::looks_like_code(&text) {
        return Ok((Some(text.into_owned()), words.get(1).cloned()));
    }
    match words.len() {
        1 => Ok((None, Some(first.clone()))),
        _ => Err(Failure::new(Exit::Usage, format!("`{text}` is not a code such as 7-velvet-island"))
            .with_hint("the code comes first, then the path")),
    }
}

fn ask_invite() -> Result<String, Failure> {
    if io::stdin().is_terminal() {
        output::write("Code or link: ")?;
    }
    let mut line = String::new();
    let read = io::stdin().lock().take(INVITE_LEN_MAX).read_line(&mut line);
    read.map_err(|error| Failure::from_error(&error).while_doing("cannot read the code"))?;
    Ok(line)
}

/// A folder that this device shares.
struct Mine {
    id: FolderId,
    name: String,
    path: PathBuf,
    is_new: bool,
}

/// What becomes of a folder by the pairing.
enum Folder {
    /// The other device gets it.
    Given(Mine),
    /// It comes here.
    Taken { name: String, path: PathBuf },
    /// It is here already, on both.
    Shared { name: String },
    /// It is offered, and a person has yet to say where it goes.
    Offered { name: String },
    /// There is none.
    None,
}

struct Pairing<'a> {
    context: &'a Context,
    args: &'a Args,
    own: DeviceId,
    config: Config,
    /// Whether the person is asked when the other device is there.
    asks: bool,
    /// A directory that was made for this, and goes again where nothing comes of it.
    made: Option<PathBuf>,
}

impl Drop for Pairing<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.made.take() {
            // Only while it is empty.
            fs::remove_dir(path).ok();
        }
    }
}

impl Pairing<'_> {
    fn host(mut self, identity: &Identity, path: Option<&Path>) -> Result<Exit, Failure> {
        let mine = path.map(|path| self.folder_to_share(path)).transpose()?;
        let window = Window::open(&self.config, identity).map_err(failed)?;
        self.say_invitation(&window, mine.as_ref())?;
        let mut meeting = window.wait(say_wrong_guess).map_err(failed)?;
        meeting.introduce(self.introduction(mine.as_ref())).map_err(failed)?;
        let theirs = meeting.introduced().map_err(failed)?;
        let folder = match (mine, &theirs.folder) {
            (Some(mine), _) => Folder::Given(mine),
            (None, Some(offer)) => self.offered(offer),
            (None, None) => Folder::None,
        };
        self.settle(meeting, &theirs, folder)
    }

    fn join(mut self, identity: &Identity, invite: &Invite, path: Option<&Path>) -> Result<Exit, Failure> {
        let mut meeting = pairing::join(&self.config, identity, invite, self.args.at).map_err(failed)?;
        let theirs = meeting.introduced().map_err(failed)?;
        let (mine, folder) = match (path, &theirs.folder) {
            (Some(path), None) => (Some(self.folder_to_share(path)?), Folder::None),
            (Some(path), Some(offer)) => (None, self.taken(offer, path)?),
            (None, Some(offer)) => (None, self.offered(offer)),
            (None, None) => (None, Folder::None),
        };
        meeting.introduce(self.introduction(mine.as_ref())).map_err(failed)?;
        self.settle(meeting, &theirs, mine.map_or(folder, Folder::Given))
    }

    /// Looks which folder is meant by a path that is to be shared.
    fn folder_to_share(&mut self, path: &Path) -> Result<Mine, Failure> {
        let real = real_path(path);
        if let Some(known) = self.config.folders.iter().find(|folder| real_path(&folder.path) == real) {
            if known.members.right_of(&self.own) != Some(Right::Owner) {
                return Err(Failure::new(Exit::Failed, format!("only an owner of `{}` can share it", known.name))
                    .with_hint("pair without a path, and have an owner share it"));
            }
            return Ok(Mine { id: known.id, name: known.name.clone(), path: known.path.clone(), is_new: false });
        }
        if let Some(accept) = self.config.accepts.iter().find(|accept| real_path(&accept.path) == real) {
            return Err(Failure::new(Exit::Failed, format!("`{}` is not here yet", accept.name))
                .with_hint("pair again once it has come"));
        }
        let name = up::free_name(&self.config, &real);
        if folder::make_directory(path)? {
            self.made = Some(path.to_owned());
        }
        Ok(Mine { id: folder::new_id()?, name, path: path.to_owned(), is_new: true })
    }

    fn offered(&self, offer: &SharedFolder) -> Folder {
        match self.config.folder(&offer.id) {
            Some(known) => Folder::Shared { name: known.name.clone() },
            None => Folder::Offered { name: offer.name.clone() },
        }
    }

    fn taken(&self, offer: &SharedFolder, path: &Path) -> Result<Folder, Failure> {
        if let Some(known) = self.config.folder(&offer.id) {
            if real_path(&known.path) != real_path(path) {
                let (name, place) = (&known.name, known.path.display());
                return Err(Failure::new(Exit::Failed, format!("`{name}` is here already, at {place}"))
                    .with_hint("pair again without a path"));
            }
            return Ok(Folder::Shared { name: known.name.clone() });
        }
        if let Some(other) = self.config.folders.iter().find(|folder| real_path(&folder.path) == real_path(path)) {
            let (name, offered) = (&other.name, &offer.name);
            return Err(Failure::new(Exit::Failed, format!("{} is `{name}`, another folder", path.display()))
                .with_hint(format!("name another place for `{offered}`, or pair without a path")));
        }
        Ok(Folder::Taken { name: offer.name.clone(), path: path.to_owned() })
    }

    fn introduction(&self, mine: Option<&Mine>) -> Introduction {
        // A daemon that runs knows best where it listens.
        let status = self.context.client().ok().and_then(|client| client.status().ok());
        let mut listen = status.map_or_else(|| self.config.network.listen.clone(), |status| status.listen);
        listen.retain(|at| at.port() != 0);
        listen.truncate(PAIRING_ADDRESSES_MAX);
        let shared = |mine: &Mine| SharedFolder { id: mine.id, name: mine.name.clone(), right: self.args.right };
        Introduction { name: self.config.name.clone(), listen, folder: mine.map(shared) }
    }

    /// Asks the person, and does what both agree on.
    fn settle(mut self, mut meeting: Meeting, theirs: &Introduction, folder: Folder) -> Result<Exit, Failure> {
        let device = self.device(&meeting, theirs);
        // What cannot be written down is found out before anybody is asked.
        let mut rehearsal = Edit::open(&self.context.paths)?;
        self.write(&mut rehearsal, &device, &folder)?;
        drop(rehearsal);
        let words = meeting.words();
        if !self.args.json {
            output::say(format_args!("\n`{}` is there: {}", output::escaped(&device.name), device.id))?;
            output::say(format_args!("Both devices show these words: {words}"))?;
        }
        let agrees = !self.asks || self.ask(&device, &folder)?;
        if !meeting.agree(agrees).map_err(failed)? {
            let who = if agrees { "the other device said no" } else { "you said no" };
            return Err(Failure::new(Exit::Failed, format!("{who}; nothing was changed"))
                .with_hint("run `kinfold pair` again on both once both agree"));
        }
        let written = self.context.edit(|edit| self.write(edit, &device, &folder));
        let concluded = meeting.conclude(written.is_ok());
        written?;
        self.made = None;
        if !concluded.map_err(failed)? {
            return Err(Failure::new(Exit::Failed, "the other device could not write the pairing down")
                .with_hint("see what it says there, and run `kinfold pair` again on both"));
        }
        self.say_result(&device, &folder, &words)?;
        Ok(Exit::Done)
    }

    /// What the other device becomes in the trust list.
    fn device(&self, meeting: &Meeting, theirs: &Introduction) -> Device {
        let (id, addresses) = (meeting.peer(), meeting.addresses_of(theirs));
        if let Some(known) = self.config.device(&id) {
            return Device { rates: known.rates, ..Device::new(known.name.clone(), id, addresses) };
        }
        let plain = if check_label(&theirs.name).is_ok() { theirs.name.clone() } else { "device".to_owned() };
        let is_free = |name: &String| *name != self.config.name && self.config.device_named(name).is_none();
        let numbered = (2..).map(|n| format!("{plain}-{n}")).find(|name| check_label(name).is_err() || is_free(name));
        let name = if is_free(&plain) { plain } else { numbered.unwrap_or_else(|| "device".to_owned()) };
        Device::new(name, id, addresses)
    }

    fn write(&self, edit: &mut Edit, device: &Device, folder: &Folder) -> Result<(), Failure> {
        edit.add_device(&self.own, device)?;
        match folder {
            Folder::Given(mine) => {
                if mine.is_new {
                    let (name, path) = (mine.name.clone(), mine.path.clone());
                    edit.add_folder(&self.own, &NewFolder { name, path, id: mine.id, shares: vec![] })?;
                }
                edit.share(&self.own, &mine.name, &device.id, self.args.right)?;
            }
            Folder::Taken { name, path } => {
                check_label(name).map_err(|error| {
                    Failure::from_error(&error)
                        .while_doing("the other device calls its folder what no folder can be called here")
                        .with_hint(error.advice())
                })?;
                let accept = Accept { name: name.clone(), path: path.clone(), from: device.id, shares: vec![] };
                edit.accept(&accept)?;
            }
            Folder::Shared { .. } | Folder::Offered { .. } | Folder::None => {}
        }
        Ok(())
    }

    fn ask(&self, device: &Device, folder: &Folder) -> Result<bool, Failure> {
        let name = output::escaped(&device.name);
        let what = match folder {
            Folder::Given(mine) => {
                format!(", and share `{}` with it as {}", output::escaped(&mine.name), self.args.right.as_str())
            }
            Folder::Taken { .. } | Folder::Shared { .. } | Folder::Offered { .. } | Folder::None => String::new(),
        };
        output::write(&format!("Trust `{name}`{what}? [y/N] "))?;
        let mut answer = String::new();
        let read = io::stdin().lock().take(INVITE_LEN_MAX).read_line(&mut answer);
        read.map_err(|error| Failure::from_error(&error).while_doing("cannot read the answer"))?;
        Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
    }

    fn say_invitation(&self, window: &Window, mine: Option<&Mine>) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Invitation {
            code: String,
            link: String,
            addresses: Vec<SocketAddr>,
        }
        let (code, link) = (window.code().to_string(), window.link().to_string());
        let addresses = window.link().addresses.clone();
        if self.args.json {
            return output::say_json_line(&Invitation { code, link, addresses });
        }
        let what = mine.map_or_else(String::new, |mine| format!(", to get `{}`", output::escaped(&mine.name)));
        let path = if mine.is_some() { " PATH" } else { "" };
        output::say(format_args!("On the other device, within 10 minutes{what}:\n\n    kinfold pair {code}{path}\n"))?;
        if let Some(at) = addresses.first() {
            let when = if window.is_announced() { "Where that does not find this device" } else { "For now" };
            output::say(format_args!("{when}, add: --at {at}"))?;
        }
        output::say(format_args!("Or run `kinfold pair -{path}` there and paste this link:\n\n{link}\n"))?;
        if io::stdout().is_terminal()
            && let Ok(qr) = QrCode::new(link.to_uppercase())
        {
            output::say(qr.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())?;
        }
        Ok(())
    }

    fn say_result(&self, device: &Device, folder: &Folder, words: &str) -> Result<(), Failure> {
        let was_running = !matches!(self.context.client()?.status(), Err(ControlError::NoDaemon { .. }));
        // With a home of its own it is somebody's trial, or somebody else's to start.
        let is_trial = self.context.home.is_some();
        // Nor can a service ask for a passphrase.
        let is_locked = unlock::find(&self.context.paths).is_ok_and(|found| found.is_some_and(|key| key.is_locked()));
        let wants_service = !was_running && !self.args.no_service && !is_trial && !is_locked;
        let begun = wants_service.then(service::install_for_user);
        let is_running = was_running || matches!(begun, Some(Ok(_)));
        if self.args.json {
            return output::say_json_line(&Outcome::of(device, folder, words, is_running));
        }
        let name = output::escaped(&device.name);
        output::say(match folder {
            Folder::Given(mine) => {
                let right = self.args.right.as_str();
                format!("`{name}` is trusted now, and `{}` is shared with it as {right}", output::escaped(&mine.name))
            }
            Folder::Taken { name: folder, path } => {
                format!("`{name}` is trusted now, and `{}` comes to {}", output::escaped(folder), shown(path))
            }
            Folder::Shared { name: folder } => {
                format!("`{name}` is trusted now; `{}` is here already", output::escaped(folder))
            }
            Folder::Offered { name: folder } => format!(
                "`{name}` is trusted now; to take its folder: kinfold folder accept {} PATH --from {}",
                output::word(folder),
                output::word(&device.name)
            ),
            Folder::None => format!("`{name}` is trusted now"),
        })?;
        match begun {
            Some(Ok(lines)) => {
                lines.iter().try_for_each(output::say)?;
                output::say("`kinfold service uninstall` ends that; `kinfold status --watch` shows what it does")
            }
            Some(Err(failure)) => {
                let why = output::printable(failure.message());
                output::say(format_args!("kinfold does not run yet, and the system does not start it: {why}"))?;
                output::say("`kinfold up` runs it here")
            }
            None if was_running => Ok(()),
            None => output::say(
                "kinfold does not run yet: `kinfold up` runs it here, `kinfold service install` from now on",
            ),
        }
    }
}

#[derive(Serialize)]
struct Outcome<'a> {
    device: &'a str,
    id: String,
    addresses: &'a [SocketAddr],
    words: &'a str,
    /// `given`, `taken`, `shared`, `offered`, or nothing where there is no folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    folder_is: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<&'a str>,
    running: bool,
}

impl<'a> Outcome<'a> {
    fn of(device: &'a Device, folder: &'a Folder, words: &'a str, running: bool) -> Self {
        let (folder_is, folder) = match folder {
            Folder::Given(mine) => (Some("given"), Some(mine.name.as_str())),
            Folder::Taken { name, .. } => (Some("taken"), Some(name.as_str())),
            Folder::Shared { name } => (Some("shared"), Some(name.as_str())),
            Folder::Offered { name } => (Some("offered"), Some(name.as_str())),
            Folder::None => (None, None),
        };
        let (id, addresses) = (device.id.to_string(), device.addresses.as_slice());
        Self { device: &device.name, id, addresses, words, folder_is, folder, running }
    }
}

fn say_wrong_guess(left: u32) {
    // Told beside the output, which scripts read.
    if left > 0 {
        let tries = output::counted(u64::from(left), "try is", "tries are");
        // Nobody reads it where that fails, and the window stays open all the same.
        writeln!(io::stderr(), "a wrong code was tried; {tries} left before this one counts no longer").ok();
    }
}

fn shown(path: &Path) -> String {
    output::printable(&path.display().to_string())
}

fn failed(error: PairError) -> Failure {
    let exit = match error {
        PairError::TooLate => Exit::Timeout,
        _ => Exit::Failed,
    };
    let failure = Failure::from_error(&error).with_exit(exit);
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn window(text: &str) -> Result<SocketAddr, AddressError> {
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, pairing::PAIRING_PORT)),
        Err(_) => address::parse_device(text),
    }
}

fn right(text: &str) -> Result<Right, String> {
    let words = Right::ALL.map(Right::as_str).join(", ");
    Right::parse(text).ok_or_else(|| format!("rights are {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: Result<(Option<&str>, Option<&str>), &str>) {
        let words: Vec<PathBuf> = words.iter().map(PathBuf::from).collect();
        let found = understood(&words);
        match (found, expected) {
            (Ok((code, path)), Ok(expected)) => {
                assert_eq!((code.as_deref(), path.as_deref()), (expected.0, expected.1.map(Path::new)), "{words:?}");
            }
            (Err(failure), Err(expected)) => assert!(failure.message().contains(expected), "{words:?}: {failure:?}"),
            (found, _) => panic!("{words:?}: {found:?}"),
        }
    }

    #[test]
    fn a_code_is_told_from_a_path() {
        check(&[], Ok((None, None)));
        check(&["Photos"], Ok((None, Some("Photos"))));
        check(&["7-velvet-island"], Ok((Some("7-velvet-island"), None)));
        check(&["7 velvet island", "Photos"], Ok((Some("7 velvet island"), Some("Photos"))));
        check(&["-", "Photos"], Ok((Some("-"), Some("Photos"))));
        // A mistyped code is a code, and not a directory to share.
        check(&["7-velvvt-island"], Ok((Some("7-velvvt-island"), None)));
        check(&["./7-velvet-island"], Ok((None, Some("./7-velvet-island"))));
        check(&["Photos", "7-velvet-island"], Err("`Photos` is not a code"));
        check(&["KINFOLD:PAIR/KIN1/X"], Err("a link is a secret"));
    }

    #[test]
    fn a_window_has_a_port_of_its_own() {
        assert_eq!(window("10.0.0.7"), Ok("10.0.0.7:25464".parse().unwrap()));
        assert_eq!(window("fd00::7"), Ok("[fd00::7]:25464".parse().unwrap()));
        assert_eq!(window("10.0.0.7:1"), Ok("10.0.0.7:1".parse().unwrap()));
        assert!(window("nas.local").is_err());
    }
}
