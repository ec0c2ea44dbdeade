//! `kinfold service`: has the system start the daemon by itself.
//!
//! What is written is what lies in `packaging/`, with the path of this program in it; nothing is made up
//! here. Where systemd refuses, what was written stays, and what it said is shown.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command as Process;
use std::process::Stdio;

use etcetera::BaseStrategy;
use serde::Serialize;

use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::path::Escaped;

/// Subcommands of `kinfold service`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start the daemon now and at every login
    Install(Install),
    /// Stop the daemon, and no longer start it
    Uninstall(Which),
    /// Show whether the daemon is started by the system; exit code 5 where it does not run
    Status(Status),
}

/// Whose service.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// For this user, from the start of the machine on; needs root
    #[arg(long, value_name = "USER", value_parser = user_name)]
    system: Option<String>,
}

/// Arguments of `kinfold service install`.
#[derive(Debug, clap::Args)]
pub struct Install {
    #[command(flatten)]
    which: Which,

    /// Only write the unit into this directory and start nothing, as packages do
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Arguments of `kinfold service status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    which: Which,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where packages put the program, and the units say that it lies.
const PACKAGED_PROGRAM: &str = "/usr/bin/kinfold";
/// Where the units of a machine lie that a person put there.
const SYSTEM_UNITS: &str = "/etc/systemd/system";

const USER_UNIT: &str = include_str!("../../packaging/systemd/kinfold.service");
const SYSTEM_UNIT: &str = include_str!("../../packaging/systemd/kinfold@.service");
const LAUNCHD_PLIST: &str = include_str!("../../packaging/launchd/org.kinfold.kinfold.plist");

/// Runs the command. `home` is what was given as `--home`.
pub fn run(home: Option<&Path>, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Install(args) => install(home, &args),
        Command::Uninstall(which) => uninstall(&Service::of(&which)?),
        Command::Status(args) => status(&Service::of(&args.which)?, args.json),
    }
}

/// What starts programs on this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manager {
    SystemdOfUser,
    SystemdOfMachine,
    LaunchdOfUser,
}

/// A service, installed or not.
#[derive(Debug)]
struct Service {
    manager: Manager,
    /// What the manager calls it.
    name: String,
    /// Where its description lies.
    file: PathBuf,
}

impl Service {
    fn of(which: &Which) -> Result<Self, Failure> {
        let here = |manager, name: &str, dir: PathBuf, file: &str| {
            Ok(Self { manager, name: name.to_owned(), file: dir.join(file) })
        };
        match &which.system {
            Some(_) if cfg!(target_os = "macos") => {
                Err(Failure::new(Exit::Usage, "--system is for systems with systemd"))
            }
            Some(user) => here(
                Manager::SystemdOfMachine,
                &format!("kinfold@{user}.service"),
                SYSTEM_UNITS.into(),
                "kinfold@.service",
            ),
            None if cfg!(target_os = "macos") => {
                let home = etcetera::home_dir().map_err(|error| Failure::from_error(&error))?;
                here(Manager::LaunchdOfUser, LABEL, home.join("Library/LaunchAgents"), &format!("{LABEL}.plist"))
            }
            None => {
                let xdg = etcetera::base_strategy::Xdg::new().map_err(|error| Failure::from_error(&error))?;
                here(
                    Manager::SystemdOfUser,
                    "kinfold.service",
                    xdg.config_dir().join("systemd/user"),
                    "kinfold.service",
                )
            }
        }
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let doing = format!("cannot write {}", self.file.display());
        let dir = self.file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).and_then(|()| fs::write(&self.file, text)).map_err(|error| {
            let hint = match self.manager {
                Manager::SystemdOfMachine => "run this as root",
                _ => "make the directory writable, or write the unit elsewhere with --to DIR",
            };
            Failure::from_error(&error).while_doing(&doing).with_hint(hint)
        })
    }

    /// Asks systemd, or tells that there is none.
    fn systemctl(&self, args: &[&str]) -> Result<Said, Failure> {
        let mut command = Process::new("systemctl");
        if self.manager == Manager::SystemdOfUser {
            command.arg("--user");
        }
        ask(command.args(args), "systemd")
    }
}

const LABEL: &str = "org.kinfold.kinfold";

/// What a manager answered.
#[derive(Debug)]
struct Said {
    is_done: bool,
    stdout: String,
    stderr: String,
}

impl Said {
    /// Turns a refusal into a failure in the manager's own words.
    fn or_failure(self, what: &str, hint: &str) -> Result<(), Failure> {
        if self.is_done {
            return Ok(());
        }
        let why = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        Err(Failure::new(Exit::Failed, format!("{what}: {why}")).with_hint(hint))
    }
}

fn ask(command: &mut Process, what: &str) -> Result<Said, Failure> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        let program = command.get_program().to_string_lossy().into_owned();
        let failure = match error.kind() {
            io::ErrorKind::NotFound => Failure::new(Exit::Failed, format!("there is no {what} here (no `{program}`)")),
            _ => Failure::from_error(&error).while_doing(&format!("cannot run {program}")),
        };
        failure.with_hint("have whatever starts programs on this system run `kinfold serve`")
    })?;
    Ok(Said {
        is_done: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn install(home: Option<&Path>, args: &Install) -> Result<Exit, Failure> {
    said(&installed(home, args)?)
}

/// Has the system start the daemon of this user, now and from now on. Returns what there is to say of it.
pub fn install_for_user() -> Result<Vec<String>, Failure> {
    installed(None, &Install { which: Which { system: None }, to: None })
}

fn installed(home: Option<&Path>, args: &Install) -> Result<Vec<String>, Failure> {
    let mut service = Service::of(&args.which)?;
    if service.manager == Manager::SystemdOfMachine && home.is_some() {
        return Err(Failure::new(Exit::Usage, "--home and --system do not go together")
            .with_hint("the service of a machine keeps everything where the user's own commands look for it"));
    }
    let program = std::env::current_exe().map_err(|error| Failure::from_error(&error))?;
    let home = home.map(std::path::absolute).transpose().map_err(|error| Failure::from_error(&error))?;
    let text = description(service.manager, &program, home.as_deref())?;
    if let Some(dir) = &args.to {
        let name = service.file.file_name().unwrap_or_default().to_owned();
        service.file = dir.join(name);
        service.write(&text)?;
        return Ok(vec![format!("wrote {}", Escaped(service.file.as_os_str().as_encoded_bytes()))]);
    }
    if service.manager != Manager::LaunchdOfUser {
        // Asked before anything is written, so that nothing is left half done where there is no systemd.
        service.systemctl(&["--version"])?;
    }
    service.write(&text)?;
    let file = Escaped(service.file.as_os_str().as_encoded_bytes()).to_string();
    if service.manager == Manager::LaunchdOfUser {
        let mut launchctl = Process::new("launchctl");
        launchctl.args(["load", "-w"]).arg(&service.file);
        ask(&mut launchctl, "launchd")?.or_failure(
            &format!("{file} is written, but launchd did not take it"),
            "correct that, and run this again",
        )?;
    } else {
        let hint = "correct that, and run this again; `kinfold service uninstall` takes the unit away";
        let refused = format!("{file} is written, but systemd did not take it");
        service.systemctl(&["daemon-reload"])?.or_failure(&refused, hint)?;
        service.systemctl(&["enable", &service.name])?.or_failure(&refused, hint)?;
        let hint = format!("{} says why", journal(&service));
        // It may be running already, by an older unit or an older program.
        service.systemctl(&["restart", &service.name])?.or_failure("the service does not start", &hint)?;
    }
    let mut lines = vec![format!("wrote {file}"), format!("{} runs, and will be started again", service.name)];
    if service.manager == Manager::SystemdOfUser {
        lines.push("it ends when you log out; `loginctl enable-linger` keeps it running".to_owned());
    }
    Ok(lines)
}

fn journal(service: &Service) -> String {
    let whose = if service.manager == Manager::SystemdOfUser { " --user" } else { "" };
    format!("`journalctl{whose} -u {}`", service.name)
}

fn uninstall(service: &Service) -> Result<Exit, Failure> {
    let file = Escaped(service.file.as_os_str().as_encoded_bytes()).to_string();
    let is_there = service.file.exists();
    if service.manager == Manager::LaunchdOfUser {
        let mut launchctl = Process::new("launchctl");
        // One that is not loaded is what is wanted.
        ask(launchctl.args(["unload", "-w"]).arg(&service.file), "launchd")?;
    } else {
        // Half of it may be missing, so each step is taken whatever the others find.
        let stopped = service.systemctl(&["disable", "--now", &service.name])?;
        if is_there {
            stopped.or_failure("the service could not be stopped", "correct that, and run this again")?;
        }
    }
    // The unit of a machine serves other users, too.
    if is_there && !is_shared(service)? {
        fs::remove_file(&service.file)
            .map_err(|error| Failure::from_error(&error).while_doing(&format!("cannot remove {file}")))?;
    }
    if service.manager != Manager::LaunchdOfUser {
        let hint = "run `systemctl daemon-reload` once that is in order";
        service.systemctl(&["daemon-reload"])?.or_failure("systemd did not read its units anew", hint)?;
    }
    said(&[match is_there {
        true => format!("{} is stopped and will not be started again", service.name),
        false => format!("{} was not installed here ({file})", service.name),
    }])
}

/// Returns whether other users are served by the same file.
fn is_shared(service: &Service) -> Result<bool, Failure> {
    if service.manager != Manager::SystemdOfMachine {
        return Ok(false);
    }
    let said = service.systemctl(&["list-units", "--all", "--plain", "--no-legend", "kinfold@*.service"])?;
    Ok(said.stdout.lines().any(|line| line.split_whitespace().next().is_some_and(|unit| unit != service.name)))
}

/// How a service stands, for programs.
#[derive(Debug, Serialize)]
struct Standing {
    name: String,
    file: String,
    /// Whether the file is there.
    installed: bool,
    /// Whether the manager starts it by itself.
    enabled: bool,
    /// Whether it runs now.
    active: bool,
    /// The manager's own words for that.
    state: String,
}

fn status(service: &Service, json: bool) -> Result<Exit, Failure> {
    let packaged = Path::new("/usr/lib/systemd").join(match service.manager {
        Manager::SystemdOfUser => "user/kinfold.service",
        _ => "system/kinfold@.service",
    });
    let file = [service.file.clone(), packaged].into_iter().find(|file| file.exists());
    let (enabled, active, state) = match service.manager {
        Manager::LaunchdOfUser => {
            let said = ask(Process::new("launchctl").args(["list", LABEL]), "launchd")?;
            let is_running = said.is_done && said.stdout.contains("\"PID\"");
            (said.is_done, is_running, if is_running { "active" } else { "inactive" }.to_owned())
        }
        _ => {
            let enabled = service.systemctl(&["is-enabled", &service.name])?;
            let active = service.systemctl(&["is-active", &service.name])?;
            let state = match (active.stdout.is_empty(), active.stderr.trim()) {
                (true, "") => "unknown".to_owned(),
                (true, error) => error.lines().next().unwrap_or_default().to_owned(),
                (false, _) => active.stdout.clone(),
            };
            (enabled.is_done, active.is_done, state)
        }
    };
    let standing = Standing {
        name: service.name.clone(),
        installed: file.is_some(),
        file: file.unwrap_or_else(|| service.file.clone()).display().to_string(),
        enabled,
        active,
        state,
    };
    if json {
        output::say_json(&standing)?;
    } else {
        let word = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
        output::say(format_args!("{}: {}", standing.name, output::printable(&standing.state)))?;
        let file = output::printable(&standing.file);
        output::say(format_args!("  unit      {} {file}", word(standing.installed, "is", "is missing:")))?;
        output::say(format_args!("  started   {}", word(standing.enabled, "by the system", "by nobody")))?;
        if !standing.active {
            let hint = if standing.installed { journal(service) } else { "`kinfold service install`".to_owned() };
            output::say(format_args!("  see       {hint}"))?;
        }
    }
    Ok(if standing.active { Exit::Done } else { Exit::NoDaemon })
}

fn said(lines: &[String]) -> Result<Exit, Failure> {
    lines.iter().try_for_each(output::say)?;
    Ok(Exit::Done)
}

/// Returns the text of the unit, with the program where it lies.
fn description(manager: Manager, program: &Path, home: Option<&Path>) -> Result<String, Failure> {
    let text = match manager {
        Manager::SystemdOfUser => USER_UNIT,
        Manager::SystemdOfMachine => SYSTEM_UNIT,
        Manager::LaunchdOfUser => LAUNCHD_PLIST,
    };
    let quote = if manager == Manager::LaunchdOfUser { for_plist } else { for_unit };
    let text = text.replace(PACKAGED_PROGRAM, &quote(program)?);
    let Some(home) = home else { return Ok(text) };
    let home = quote(home)?;
    Ok(match manager {
        Manager::LaunchdOfUser => {
            let serve = "<string>serve</string>";
            text.replace(serve, &format!("<string>--home</string>\n        <string>{home}</string>\n        {serve}"))
        }
        _ => text.replace(" serve\n", &format!(" --home {home} serve\n")),
    })
}

fn text_of(path: &Path) -> Result<&str, Failure> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    text.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("a unit cannot name {}", Escaped(path.as_os_str().as_encoded_bytes())))
            .with_hint("put it at a path of plain characters")
    })
}

/// Writes a path as systemd reads it in a command line.
fn for_unit(path: &Path) -> Result<String, Failure> {
    let text = text_of(path)?;
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@,=~".contains(c);
    if text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

/// Writes a path as XML.
fn for_plist(path: &Path) -> Result<String, Failure> {
    Ok(text_of(path)?.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

/// Checks the name of a user before it becomes part of the name of a unit.
fn user_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if text.is_empty() || text.starts_with(['-', '.']) || !text.chars().all(is_plain) {
        return Err("a user name has letters, digits, `_`, `-` and `.`".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_packages_install_is_written_as_it_is() {
        let packaged = Path::new(PACKAGED_PROGRAM);
        assert_eq!(description(Manager::SystemdOfUser, packaged, None).unwrap(), USER_UNIT);
        assert_eq!(description(Manager::SystemdOfMachine, packaged, None).unwrap(), SYSTEM_UNIT);
        assert_eq!(description(Manager::LaunchdOfUser, packaged, None).unwrap(), LAUNCHD_PLIST);
    }

    #[test]
    fn paths_are_written_as_each_manager_reads_them() {
        let program = Path::new("/opt/my tools/50%/$k\"f");
        let home = Path::new("/srv/k");
        let unit = description(Manager::SystemdOfUser, program, Some(home)).unwrap();
        assert!(unit.contains("ExecStart=\"/opt/my tools/50%%/$$k\\\"f\" --home /srv/k serve\n"), "{unit}");
        let plist = description(Manager::LaunchdOfUser, Path::new("/opt/a&b"), Some(home)).unwrap();
        assert!(plist.contains("<string>/opt/a&amp;b</string>"), "{plist}");
        assert!(plist.contains("<string>--home</string>\n        <string>/srv/k</string>"), "{plist}");
        assert!(description(Manager::SystemdOfUser, Path::new("/a\nb"), None).is_err());
    }

    #[test]
    fn a_user_that_would_name_another_unit_is_refused() {
        assert!(user_name("alice").is_ok() && user_name("www-data").is_ok());
        for name in ["", "-x", "a/b", "a b", "a%i", "..", "a@b"] {
            assert!(user_name(name).is_err(), "{name}");
        }
    }
}
