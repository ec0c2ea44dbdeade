//! `kinfold status`: folders, devices and what is under way.

use std::thread;
use std::time::Duration;

use jiff::Zoned;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::live;
use crate::cli::output;
use crate::cli::output::bytes;
use crate::cli::output::counted;
use crate::cli::output::escaped;
use crate::cli::output::printable;
use crate::config::windows::shortly;
use crate::control::types::FolderState;
use crate::control::types::FolderStatus;
use crate::control::types::MemberStatus;
use crate::control::types::PeerStatus;
use crate::control::types::RatesStatus;
use crate::control::types::RotationStatus;
use crate::control::types::SandboxStatus;
use crate::control::types::Status;

/// Arguments of `kinfold status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON; with --watch, a line of it for each change
    #[arg(long)]
    json: bool,

    /// Go on: on a terminal show all of it live, else print it anew whenever it changes
    #[arg(long)]
    watch: bool,
}

const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let client = context.client()?;
    if args.watch && !args.json && live::has_terminal() {
        return live::watch(&client).map(|()| Exit::Done);
    }
    let mut shown = None;
    loop {
        let status = client.status()?;
        if shown.as_ref() != Some(&status) {
            match (args.json, args.watch) {
                (true, true) => output::say_json_line(&status)?,
                (true, false) => output::say_json(&status)?,
                (false, _) => text(&status).iter().try_for_each(output::say)?,
            }
            shown = Some(status);
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        thread::sleep(WATCH_PAUSE);
    }
}

/// Returns the status for people. Words of trouble stand in it only where there is trouble.
fn text(status: &Status) -> Vec<String> {
    let listen: Vec<_> = status.listen.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        format!("{}  {}", escaped(&status.device.name), status.device.id),
        format!("talks to {}, listens on {}", policy(status), listen.join(" ")),
        confinement(&status.sandbox),
    ];
    lines.extend(rates(&status.rates));
    lines.extend([String::new(), "Folders".to_owned()]);
    let rows: Vec<_> = status.folders.iter().map(folder_row).collect();
    for (folder, row) in status.folders.iter().zip(output::columns(&rows)) {
        lines.push(format!("  {row}"));
        lines.extend(folder_notes(folder).into_iter().map(|note| format!("    {note}")));
    }
    if status.folders.is_empty() {
        lines.push("  none yet: kinfold folder add PATH --name NAME".to_owned());
    }
    lines.extend([String::new(), "Devices".to_owned()]);
    let rows: Vec<_> = status.peers.iter().map(peer_row).collect();
    for (peer, row) in status.peers.iter().zip(output::columns(&rows)) {
        lines.push(format!("  {row}"));
        let notes = peer.hint.iter().map(|hint| printable(hint)).chain(rates(&peer.rates));
        lines.extend(notes.map(|note| format!("    {note}")));
    }
    if status.peers.is_empty() {
        lines.push("  none yet: kinfold pair".to_owned());
    }
    lines.extend(status.rotation.iter().filter(|rotation| !rotation.unheard.is_empty()).map(rotation));
    lines.extend([String::new(), "Sockets".to_owned()]);
    lines.extend(status.sockets.iter().map(|socket| format!("  {}", printable(socket))));
    if status.watch.limit_reached {
        lines.extend([String::new(), "Not all directories can be watched; see `kinfold doctor`".to_owned()]);
    }
    if status.inbox > 0 {
        let things = counted(status.inbox, "thing waits", "things wait");
        lines.extend([String::new(), format!("{things} for you: kinfold inbox")]);
    }
    lines
}

fn policy(status: &Status) -> String {
    let by = match (status.policy.interfaces.is_empty(), status.policy.interfaces_away.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!(" by {} alone", status.policy.interfaces.join(" and ")),
        (false, false) => {
            let away = status.policy.interfaces_away.join(" and ");
            format!(" by {} alone, of which {away} is away", status.policy.interfaces.join(" and "))
        }
    };
    let whom = match (status.policy.mode.as_str(), status.policy.allow.is_empty()) {
        ("lan", true) => "local networks alone".to_owned(),
        ("lan", false) => format!("local networks and {}", status.policy.allow.join(" ")),
        (mode, _) => format!("{mode} network"),
    };
    whom + &by
}

/// Returns in a line what the daemon took from itself.
fn confinement(sandbox: &SandboxStatus) -> String {
    let in_force = printable(&sandbox.in_force.join(", "));
    match (sandbox.in_force.is_empty(), sandbox.missing.is_empty()) {
        (true, true) => "not confined".to_owned(),
        (false, true) => format!("confined: {in_force}"),
        (true, false) => format!("not confined: {}", printable(&sandbox.missing.join("; "))),
        (false, false) => format!("confined: {in_force}; not: {}", printable(&sandbox.missing.join("; "))),
    }
}

fn folder_row(folder: &FolderStatus) -> Vec<String> {
    let size = format!("{}, {}", counted(folder.files, "file", "files"), bytes(folder.bytes));
    vec![escaped(&folder.name), state(folder), size, folder.path.to_string()]
}

/// Returns what a folder is doing, in few words.
pub fn state(folder: &FolderStatus) -> String {
    match (folder.state, folder.in_sync) {
        (FolderState::Idle, true) => "in sync".to_owned(),
        (FolderState::Idle, false) => "waits for other devices".to_owned(),
        (FolderState::Paused, _) => format!("paused{}", until(folder)),
        (FolderState::Resting, _) => format!("rests{}", until(folder)),
        (state, _) => state.as_str().to_owned(),
    }
}

fn until(folder: &FolderStatus) -> String {
    let now = Zoned::now();
    let shown = folder.rests_until.map(|until| shortly(&until.0.to_zoned(now.time_zone().clone()), &now));
    shown.map_or_else(String::new, |until| format!(" until {until}"))
}

/// Returns in a line how fast is sent and received, where that is bounded.
fn rates(rates: &RatesStatus) -> Option<String> {
    let shown = |verb: &str, rate: Option<u64>| rate.map(|rate| format!("{verb} {}/s", bytes(rate)));
    let parts = [shown("sends", rates.send_bytes), shown("receives", rates.receive_bytes)];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("{} at most", parts.join(" and ")))
}

fn folder_notes(folder: &FolderStatus) -> Vec<String> {
    let mut notes = vec![];
    notes.extend(folder.stopped_because.as_deref().map(printable));
    notes.extend(folder.rests_because.as_deref().map(printable));
    notes.extend(rates(&folder.rates));
    if folder.need_files > 0 {
        let files = counted(folder.need_files, "file", "files");
        notes.push(format!("{files} still to come, {}", bytes(folder.need_bytes)));
    }
    if folder.held > 0 {
        let changes = counted(folder.held, "change is", "changes are");
        notes.push(format!("{changes} held until you look: kinfold inbox"));
    }
    if folder.problems > 0 {
        notes.push(format!("{}: kinfold inbox", counted(folder.problems, "problem", "problems")));
    }
    // What others hold of a folder that rests nobody can say, and its own line says why.
    let rests = matches!(folder.state, FolderState::Paused | FolderState::Resting);
    let is_behind = |member: &&MemberStatus| match (member.connected, &member.name) {
        (false, _) => true,
        (true, Some(_)) => !member.in_sync && !rests,
        (true, None) => !member.in_sync,
    };
    let behind = folder.members.iter().filter(is_behind);
    for member in behind {
        let name = member.name.as_deref().map_or_else(|| member.id.to_string(), escaped);
        notes.push(match (&member.name, member.connected) {
            (None, _) => format!("{name} belongs to it, but is not trusted here"),
            (Some(_), true) => format!("{name} does not hold all of it yet"),
            (Some(_), false) => format!("{name} is away"),
        });
    }
    notes
}

/// Returns in a line what a change of the key waits for.
fn rotation(rotation: &RotationStatus) -> String {
    let names: Vec<_> = rotation.unheard.iter().map(|name| escaped(name)).collect();
    format!("  the next id of this device waits for {}: kinfold key rotate --status", names.join(" and "))
}

fn peer_row(peer: &PeerStatus) -> Vec<String> {
    let since = peer.since.map(output::local_time);
    let state = match (peer.connected, since) {
        (true, Some(since)) => format!("connected since {since}"),
        (true, None) => "connected".to_owned(),
        (false, Some(since)) => format!("away, seen {since}"),
        (false, None) => "away".to_owned(),
    };
    let detail = match &peer.last_error {
        Some(error) if !peer.connected => printable(error),
        _ => peer.address.map(|address| address.to_string()).unwrap_or_default(),
    };
    vec![escaped(&peer.name), state, detail]
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use crate::control::types::DeviceRef;
    use crate::control::types::PolicyStatus;
    use crate::control::types::RawPath;
    use crate::control::types::Time;
    use crate::control::types::WatchStatus;
    use crate::model::id::DeviceId;
    use crate::model::id::FolderId;
    use crate::model::rights::Right;

    fn id(n: u8) -> DeviceId {
        DeviceId::from_public_key([n; 32])
    }

    fn peer(name: &str, n: u8) -> PeerStatus {
        PeerStatus {
            name: name.to_owned(),
            id: id(n),
            connected: true,
            address: Some("10.0.0.2:25463".parse().unwrap()),
            since: None,
            last_error: None,
            hint: None,
            rates: RatesStatus::default(),
        }
    }

    fn folder() -> FolderStatus {
        FolderStatus {
            name: "data".to_owned(),
            id: FolderId([9; 16]),
            path: RawPath::from(Path::new("/home/me/data")),
            state: FolderState::Idle,
            in_sync: true,
            stopped_because: None,
            files: 12,
            dirs: 2,
            bytes: 3 << 20,
            need_files: 0,
            need_bytes: 0,
            moving: vec![],
            sent_bytes: 0,
            received_bytes: 0,
            held: 0,
            problems: 0,
            history_bytes: 0,
            history_bytes_max: 0,
            members: vec![],
            rests_until: None,
            rests_because: None,
            rates: RatesStatus::default(),
        }
    }

    fn status() -> Status {
        Status {
            version: "0".to_owned(),
            device: DeviceRef { name: "h0".to_owned(), id: id(1) },
            listen: vec!["10.0.0.1:25463".parse().unwrap()],
            policy: PolicyStatus { mode: "lan".to_owned(), ..PolicyStatus::default() },
            peers: vec![peer("laptop", 2)],
            folders: vec![folder()],
            sockets: vec!["tcp 10.0.0.1:25463 listens".to_owned()],
            watch: WatchStatus::default(),
            inbox: 0,
            rates: RatesStatus::default(),
            sandbox: SandboxStatus {
                mode: "on".to_owned(),
                in_force: vec!["files".to_owned(), "system calls".to_owned()],
                ..SandboxStatus::default()
            },
            rotation: None,
        }
    }

    #[test]
    fn a_healthy_device_is_shown_without_a_word_of_trouble() {
        insta::assert_snapshot!(text(&status()).join("\n").replace(&id(1).to_string(), "ID"), @r#"
        h0  ID
        talks to local networks alone, listens on 10.0.0.1:25463
        confined: files, system calls

        Folders
          data  in sync  12 files, 3.00 MiB  /home/me/data

        Devices
          laptop  connected  10.0.0.2:25463

        Sockets
          tcp 10.0.0.1:25463 listens
        "#);
    }

    #[test]
    fn rates_and_rests_are_told_where_they_are() {
        let mut status = status();
        let rates = |send, receive| RatesStatus { send_bytes: send, receive_bytes: receive };
        status.rates = rates(Some(2 << 20), None);
        status.peers[0].rates = rates(Some(1 << 20), Some(1 << 16));
        status.folders[0].rates = rates(None, Some(1 << 15));
        let lines = text(&status);
        for line in [
            "sends 2.00 MiB/s at most",
            "    sends 1.00 MiB/s and receives 64.00 KiB/s at most",
            "    receives 32.00 KiB/s at most",
        ] {
            assert!(lines.iter().any(|shown| shown == line), "{line}: {lines:#?}");
        }
        let told = |folder_state, until: Option<&str>| {
            let rests_until = until.map(|until| Time(until.parse().unwrap()));
            state(&FolderStatus { state: folder_state, rests_until, in_sync: false, ..folder() })
        };
        assert_eq!(told(FolderState::Paused, None), "paused");
        assert_eq!(told(FolderState::Resting, None), "rests");
        let because = Some("the connection is metered".to_owned());
        let rests = FolderStatus { state: FolderState::Resting, rests_because: because, in_sync: false, ..folder() };
        assert_eq!(
            (state(&rests).as_str(), &folder_notes(&rests)[..1]),
            ("rests", &["the connection is metered".to_owned()][..])
        );
        // By the clock of this machine, whatever its zone.
        assert!(told(FolderState::Paused, Some("2001-06-15T12:00:00Z")).starts_with("paused until 2001-06-1"));
        assert!(told(FolderState::Resting, Some("2001-06-15T12:00:00Z")).starts_with("rests until 2001-06-1"));
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is_wrong() {
        let mut status = status();
        let member = |name: Option<&str>, connected| MemberStatus {
            name: name.map(str::to_owned),
            id: id(3),
            right: Right::Owner,
            connected,
            in_sync: false,
        };
        status.folders[0] = FolderStatus {
            name: "da\x1bta".to_owned(),
            state: FolderState::Stopped,
            in_sync: false,
            stopped_because: Some("its marker is missing".to_owned()),
            need_files: 1,
            need_bytes: 1024,
            problems: 2,
            members: vec![member(Some("nas"), true), member(Some("tv"), false), member(None, false)],
            ..folder()
        };
        status.peers[0] = PeerStatus {
            connected: false,
            last_error: Some("connection refused".to_owned()),
            hint: Some("is kinfold running there?".to_owned()),
            ..peer("laptop", 2)
        };
        status.watch.limit_reached = true;
        status.policy.interfaces = vec!["wg0".to_owned()];
        status.policy.interfaces_away = vec!["wg0".to_owned()];
        status.sandbox.in_force.pop();
        status.sandbox.missing.push("system calls: the kernel refused".to_owned());
        let since = crate::control::types::Time::from_unix_ns(0);
        status.rotation =
            Some(RotationStatus { next: id(4), since, unheard: vec!["t\nv".to_owned(), "nas".to_owned()] });
        status.inbox = 1;
        let text = text(&status).join("\n").replace(&id(1).to_string(), "ID").replace(&id(3).to_string(), "ID-3");
        insta::assert_snapshot!(text, @r#"
        h0  ID
        talks to local networks alone by wg0 alone, of which wg0 is away, listens on 10.0.0.1:25463
        confined: files; not: system calls: the kernel refused

        Folders
          da\u{1b}ta  stopped  12 files, 3.00 MiB  /home/me/data
            its marker is missing
            1 file still to come, 1.00 KiB
            2 problems: kinfold inbox
            nas does not hold all of it yet
            tv is away
            ID-3 belongs to it, but is not trusted here

        Devices
          laptop  away  connection refused
            is kinfold running there?
          the next id of this device waits for t\nv and nas: kinfold key rotate --status

        Sockets
          tcp 10.0.0.1:25463 listens

        Not all directories can be watched; see `kinfold doctor`

        1 thing waits for you: kinfold inbox
        "#);
    }
}
