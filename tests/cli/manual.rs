//! The manual pages: well-formed, and true of the code as it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use kinfold::cli::exit::Exit;
use kinfold::config::address::DEFAULT_PORT;
use kinfold::config::load::{DEFAULT_HISTORY_DAYS, DEFAULT_HISTORY_SIZE, DEFAULT_RESCAN_MINUTES, DEFAULT_SCRUB_DAYS};
use kinfold::engine::session::handshake::{FIRST_LEN, KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, LAST_LEN, SECOND_LEN};
use kinfold::model::limits;

use crate::Device;

fn page(name: &str) -> String {
    fs::read_to_string(format!("man/{name}")).unwrap()
}

#[test]
fn mandoc_has_nothing_to_say_of_the_pages() {
    let pages: BTreeSet<String> =
        fs::read_dir("man").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let lint = Command::new("mandoc").arg("-Tlint").args(&pages).current_dir("man").output();
    let Ok(lint) = lint else {
        assert!(std::env::var_os("KINFOLD_NEED_MANDOC").is_none(), "there is no mandoc");
        return;
    };
    let said = String::from_utf8_lossy(&lint.stdout).into_owned() + &String::from_utf8_lossy(&lint.stderr);
    let found: Vec<_> = said
        .lines()
        .filter(|line| match line.split_once("referenced manual not found: Xr ") {
            // It looks among the pages of this system, and these are not there.
            Some((_, referred)) => {
                let mut words = referred.split_whitespace();
                let (name, section) = (words.next().unwrap(), words.next().unwrap());
                !pages.contains(&format!("{name}.{section}"))
            }
            None => true,
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// The keys of each table of the configuration, by the types that read it.
fn keys_of_the_configuration() -> BTreeMap<String, BTreeSet<String>> {
    let source = fs::read_to_string("src/config/raw.rs").unwrap();
    let structs = source.split("\npub struct Raw").skip(1).map(|part| {
        let (name, rest) = part.split_once(" {").unwrap();
        let fields = rest.split("\n}").next().unwrap();
        let keys = fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next());
        (name.to_owned(), keys.map(str::to_owned).collect())
    });
    structs.collect()
}

#[test]
fn the_page_on_the_configuration_tells_of_each_key_and_of_no_other() {
    let text = page("kinfold-config.5");
    let keys = keys_of_the_configuration();
    let tables = ["network", "history", "devices", "folders", "accepts", "revoked"];
    let sections = [
        ("Config", "KEYS OF THE DEVICE"),
        ("Network", "NETWORK"),
        ("History", "KEPT HISTORY"),
        ("Device", "DEVICES"),
        ("Folder", "SYNCED FOLDERS"),
        ("Accept", "ACCEPTED FOLDERS"),
        ("Revoked", "REVOKED DEVICES"),
    ];
    for (name, title) in sections {
        let section = text.split("\n.Sh ").find(|section| section.starts_with(&format!("{title}\n"))).unwrap();
        let told: BTreeSet<String> = section
            .lines()
            .filter_map(|line| line.strip_prefix(".It Ic ")?.split(' ').next().map(str::to_owned))
            .collect();
        let mut known: BTreeSet<String> =
            keys[name].iter().filter(|key| !tables.contains(&key.as_str())).cloned().collect();
        if name == "Folder" {
            known.extend(keys["Member"].iter().cloned());
        }
        assert_eq!(told, known, "{title}");
    }
    for table in tables {
        assert!(keys["Config"].contains(table) && text.contains(&format!("[{table}]")), "{table}");
    }
}

#[test]
fn the_page_on_the_configuration_tells_the_defaults() {
    let text = page("kinfold-config.5");
    let default_of = |key: &str| {
        let entry = text.split(&format!("\n.It Ic {key} ")).nth(1).unwrap_or_else(|| panic!("{key}"));
        let entry = entry.split("\n.It ").next().unwrap();
        let default = entry.split("The default is ").nth(1).unwrap_or_else(|| panic!("{key} has no default"));
        default.split(['\n', ' ']).next().unwrap().trim_end_matches('.').to_owned()
    };
    assert_eq!(default_of("days"), DEFAULT_HISTORY_DAYS.to_string());
    assert_eq!(default_of("size"), DEFAULT_HISTORY_SIZE.to_string());
    assert_eq!(default_of("rescan_minutes"), DEFAULT_RESCAN_MINUTES.to_string());
    assert_eq!(default_of("scrub_days"), DEFAULT_SCRUB_DAYS.to_string());
    for bound in [
        format!("port is written it is {DEFAULT_PORT};"),
        format!("at most {} MiB", limits::CONFIG_LEN_MAX >> 20),
        format!("1 to {} bytes", limits::LABEL_LEN_MAX),
        format!("at most {} of them.", limits::DEVICES_MAX),
        format!("at most {} of them together", limits::FOLDERS_MAX),
        format!("at most {}, each a table", limits::MEMBERS_MAX),
    ] {
        assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(&bound), "{bound}");
    }
}

#[test]
fn the_examples_of_the_page_on_the_configuration_are_valid() {
    let text = page("kinfold-config.5");
    let examples: Vec<_> =
        text.split(".Bd -literal -offset indent\n").skip(1).map(|part| part.split(".Ed").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let device = Device::bare();
        device.make("home");
        fs::write(device.path("home/config.toml"), example).unwrap();
        device.ok(&["folder", "list"]);
    }
}

/// Kinds and names of messages, by the rows of a table.
fn messages(text: &str, lead: &str, separator: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix(lead)?.split(separator).map(str::trim);
            let (kind, name) = (cells.next()?, cells.next()?);
            kind.starts_with("0x").then(|| (kind.to_owned(), name.to_owned()))
        })
        .collect()
}

#[test]
fn the_page_on_the_protocol_tells_of_each_message() {
    let text = page("kinfold-protocol.7");
    let format = fs::read_to_string("src/wire/mod.rs").unwrap();
    let known = messages(&format, "//! |", "|");
    assert!(known.len() > 10, "the table was not found");
    assert_eq!(messages(&text, ".It ", " Ta "), known);
    for (_, name) in known {
        let is_told = |line: &str| {
            let names = line.strip_prefix(".It ").filter(|names| !names.contains(" Ta "));
            names.is_some_and(|names| names.split(" , ").any(|told| told == name))
        };
        assert!(text.lines().any(is_told), "the fields of {name} are not told");
    }
}

#[test]
fn the_page_on_the_protocol_tells_the_lengths_and_bounds() {
    let text = page("kinfold-protocol.7").split_whitespace().collect::<Vec<_>>().join(" ");
    let frame = limits::FRAME_LEN_MAX;
    for told in [
        format!("Dialer, {FIRST_LEN} bytes:"),
        format!("key of {KEM_KEY_LEN} bytes"),
        format!("Listener, {SECOND_LEN} bytes:"),
        format!("ciphertext of {KEM_CIPHERTEXT_LEN} bytes"),
        format!("Dialer, {LAST_LEN} bytes:"),
        format!("at most {},{:03},{:03}", frame / 1_000_000, frame / 1000 % 1000, frame % 1000),
        format!("list of Folder, at most {}.", limits::FOLDERS_MAX),
        format!("Record, at most {}.", limits::RECORDS_PER_MESSAGE_MAX),
        format!("length: u32), at most {}.", limits::PAGE_CHUNKS_MAX),
        format!("length: u32), at most {},", limits::INLINE_CHUNKS_MAX),
        format!("until: i64), at most {},", limits::HISTORY_PAGE_MAX),
        format!("at most {} KiB", limits::INLINE_CONTENT_MAX >> 10),
        format!("and {} MiB of chunks", limits::WANT_BYTES_IN_FLIGHT_MAX >> 20),
        format!("at most {} parts and {} bytes", limits::PATH_DEPTH_MAX, limits::PATH_LEN_MAX),
        format!("at most {}, each from 1 to 2^{}", limits::VERSION_AUTHORS_MAX, limits::VERSION_COUNTER_MAX.ilog2()),
        format!("After {} seconds", limits::KEEP_ALIVE.as_secs()),
        format!("after {} seconds", limits::PEER_TIMEOUT.as_secs()),
        format!("for at most {} seconds", limits::HANDSHAKE_TIMEOUT.as_secs()),
    ] {
        assert!(text.contains(&told), "{told}");
    }
}

#[test]
fn the_page_of_the_program_tells_the_exit_codes() {
    let text = page("kinfold.1");
    let section = text.split("\n.Sh ").find(|section| section.starts_with("EXIT STATUS")).unwrap();
    let told: Vec<_> = section.lines().filter_map(|line| line.strip_prefix(".It ")).collect();
    let all = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Timeout, Exit::NeedsPerson, Exit::NoDaemon, Exit::Locked];
    assert_eq!(told, all.map(|exit| (exit as u8).to_string()));
}
