//! What the manual pages say beyond what the table of arguments knows.

use crate::cli::exit::Exit;

/// What is to be said of one command.
pub struct Note {
    /// Which page: `kinfold-wait`.
    pub page: &'static str,
    /// Paragraphs of the description.
    pub about: &'static [&'static str],
    /// What exit codes beyond the common ones mean here.
    pub exits: &'static [(u8, &'static str)],
    /// What for, and the line to type.
    pub examples: &'static [(&'static str, &'static str)],
}

/// Returns the note on a page.
pub fn of(page: &str) -> Option<&'static Note> {
    NOTES.iter().find(|note| note.page == page)
}

/// All exit codes, in the order of their numbers.
pub const EXITS: &[(u8, &str)] = &[
    (Exit::Done as u8, "It did what was asked."),
    (Exit::Failed as u8, "It failed, and said why."),
    (Exit::Usage as u8, "The arguments were not understood; nothing was done."),
    (Exit::Timeout as u8, "What was waited for did not come in time."),
    (Exit::NeedsPerson as u8, "It did what was asked, and there is something for a person to decide."),
    (Exit::NoDaemon as u8, "It needs a running daemon, and there is none."),
    (Exit::Locked as u8, "The identity of this device is locked, and was not opened."),
];

/// How many of [`EXITS`], from the first on, every command may end with.
pub const EXITS_OF_ALL: usize = 3;

/// Variables of the environment, besides those that the table of arguments knows of.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("KINFOLD_HOME", "A directory that holds configuration, state and socket together, as with `--home`."),
    ("KINFOLD_LOG", "How much the daemon logs, as with `--log`."),
    (
        "CREDENTIALS_DIRECTORY",
        "Where systemd hands credentials over: `kinfold.passphrase`, the passphrase of a locked identity, and \
         `kinfold.identity`, an identity itself.",
    ),
    ("XDG_CONFIG_HOME", "Where the configuration lies, in a directory `kinfold`. ~/.config where it is not set."),
    ("XDG_STATE_HOME", "Where identity and indexes lie, in a directory `kinfold`. ~/.local/state where it is not set."),
    ("XDG_RUNTIME_DIR", "Where the control socket lies. Where it is not set, the socket lies with the state."),
];

/// Files, with the places that they have without `--home`.
pub const FILES: &[(&str, &str)] = &[
    ("~/.config/kinfold/config.toml", "The configuration; with `--home` config.toml in that directory."),
    ("~/.local/state/kinfold/", "The identity and the indexes; with `--home` state in that directory."),
    (
        "$XDG_RUNTIME_DIR/kinfold.sock",
        "The control socket, which speaks HTTP and JSON; with `--home` kinfold.sock in that directory.",
    ),
    (".kinfold/", "In the root of each folder: staging, history, marker and epoch. It is never synced."),
    (".kinfoldignore", "In any directory of a folder: what is left out, in the form of gitignore."),
];

const LOCKED: (u8, &str) = (Exit::Locked as u8, "It is locked, and the passphrase was wrong or was not given.");
const NO_DAEMON: (u8, &str) = (Exit::NoDaemon as u8, "No daemon runs.");

/// The notes.
pub const NOTES: &[Note] = &[
    Note {
        page: "kinfold",
        about: &[
            "Devices talk to each other directly, encrypted, and only to devices that were named on both sides. \
             There is no server and no account, and nothing is sent beyond local networks unless the configuration \
             says so.",
            "What other devices replace or delete is kept in the history of the folder for a while. Edits that were \
             made apart are both kept. A change that would delete or rewrite much of a folder waits until a person \
             has looked.",
        ],
        exits: &[],
        examples: &[
            ("Sync a directory from this device:", "kinfold up ~/Photos"),
            ("See how things stand:", "kinfold status"),
        ],
    },
    Note {
        page: "kinfold-up",
        about: &[
            "It runs in the foreground until it is interrupted, or `q` is pressed in the view that it shows on a \
             terminal. A daemon that runs already is not replaced.",
        ],
        exits: &[LOCKED],
        examples: &[("Sync a directory, and keep running:", "kinfold up ~/Photos")],
    },
    Note {
        page: "kinfold-init",
        about: &["The identity is 32 random bytes that only this user can read. Whoever has them is this device. \
             `kinfold key lock` puts a passphrase on them."],
        exits: &[],
        examples: &[("Set up a device and give it a name:", "kinfold init --name desktop")],
    },
    Note {
        page: "kinfold-key",
        about: &[
            "Without a passphrase whoever has the file of the identity is this device. With one they have to find that, \
             too, and each try takes 256 MiB of memory and about a second. The files that are synced, their history and \
             the indexes are not encrypted by it.",
            "A locked identity is opened once, when the daemon is started. The passphrase comes from the file that \
             `--passphrase-file` names, else from the systemd credential `kinfold.passphrase`, else whoever starts it is \
             asked on the terminal. It is never taken from an argument or the environment. A folder that is added later \
             needs it no second time.",
            "For a service, encrypt the passphrase to this machine, and have the unit load it: put the line \
             `LoadCredentialEncrypted=kinfold.passphrase:/etc/kinfold.passphrase` below `[Service]` in what `systemctl \
             edit kinfold@USER` opens. The services of users have credentials of their own since systemd 256: \
             `systemd-creds --user` makes them. A credential `kinfold.identity`, with what the file of an identity holds, \
             takes the place of the file.",
            "Commands that only ask who this device is need no passphrase.",
        ],
        exits: &[LOCKED],
        examples: &[
            ("Lock the identity of this device:", "kinfold key lock"),
            (
                "As root: encrypt its passphrase to this machine:",
                "systemd-ask-password -n | systemd-creds encrypt --name=kinfold.passphrase - /etc/kinfold.passphrase",
            ),
        ],
    },
    Note {
        page: "kinfold-key-lock",
        about: &[
            "There is no way to open it without the passphrase. Copies of the file that were made before stay as they \
             are; and flash memory may keep what was overwritten.",
        ],
        exits: &[],
        examples: &[("From a password manager:", "pass kinfold | kinfold key lock --stdin")],
    },
    Note {
        page: "kinfold-key-change",
        about: &["Copies of the file still open with the passphrase that they were made with."],
        exits: &[LOCKED],
        examples: &[],
    },
    Note { page: "kinfold-key-unlock", about: &[], exits: &[LOCKED], examples: &[] },
    Note {
        page: "kinfold-serve",
        about: &[
            "Beside the daemon a small process stands by, its keeper: it tells systemd how the daemon does, and \
             starts the next one when a folder was added that this one cannot reach. Where a folder is to rest while the \
             connection is metered, another one asks NetworkManager. The process id that was \
             started stays the one to send signals to. SIGHUP has it read the configuration anew, SIGTERM and SIGINT \
             end it within 10 seconds.",
            "A locked identity is opened first, as kinfold-key(1) tells.",
        ],
        exits: &[LOCKED],
        examples: &[("Run it with more in its log:", "kinfold serve --log debug")],
    },
    Note {
        page: "kinfold-status",
        about: &[],
        exits: &[NO_DAEMON],
        examples: &[("Watch what moves, and leave with q:", "kinfold status --watch")],
    },
    Note {
        page: "kinfold-wait",
        about: &["A device that is not connected is not waited for."],
        exits: &[(Exit::Timeout as u8, "The time given with `--timeout` was over first."), NO_DAEMON],
        examples: &[("Let a script wait for at most a minute:", "kinfold wait --timeout 60")],
    },
    Note {
        page: "kinfold-device-add",
        about: &[],
        exits: &[],
        examples: &[(
            "Trust the device with that id:",
            "kinfold device add kin1... --name laptop --address 192.168.1.21",
        )],
    },
    Note {
        page: "kinfold-key-rotate",
        about: &[
            "The next key is made beside the present one, and the other devices are told its id as they connect. Once all \
             of them have written it down, the device has the next key by itself; the daemon begins again, and nothing \
             is to be paired anew. Until then nothing has changed. Devices that are away keep it waiting; after three \
             days the inbox tells of that.",
            "From then on the former key opens nothing on any device that knew of the next one. It is no remedy for a \
             device that is in other hands: revoke that one with `kinfold device revoke`. The other devices tell for a \
             week in their inboxes that this one has another key.",
            "Where the identity is locked, its passphrase is asked for once, at the beginning, and the next one is locked \
             by the same. Until the key has changed, the passphrase stays as it is.",
        ],
        exits: &[LOCKED],
        examples: &[
            ("Begin:", "kinfold key rotate"),
            ("See who is waited for:", "kinfold key rotate --status"),
            ("Wait for nobody:", "kinfold key rotate --now"),
        ],
    },
    Note {
        page: "kinfold-folder-add",
        about: &[],
        exits: &[],
        examples: &[(
            "Sync a directory with a device that may only read it:",
            "kinfold folder add ~/Music --name music --share phone:reader",
        )],
    },
    Note { page: "kinfold-folder-offers", about: &[], exits: &[NO_DAEMON], examples: &[] },
    Note {
        page: "kinfold-folder-accept",
        about: &[],
        exits: &[],
        examples: &[(
            "Put a folder that the laptop shares below the home directory:",
            "kinfold folder accept Photos ~/Photos --from laptop",
        )],
    },
    Note { page: "kinfold-folder-scan", about: &[], exits: &[NO_DAEMON], examples: &[] },
    Note {
        page: "kinfold-folder-release",
        about: &["What is held is listed by `kinfold inbox`."],
        exits: &[NO_DAEMON],
        examples: &[(
            "It was not meant; bring the files back on the other devices:",
            "kinfold folder release Photos --reject",
        )],
    },
    Note {
        page: "kinfold-folder-set",
        about: &["What the settings mean is told by kinfold-config(5)."],
        exits: &[],
        examples: &[
            ("Hold back only what is larger than that:", "kinfold folder set Photos brake='500 files, 50%'"),
            (
                "Exchange nothing during office hours:",
                "kinfold folder set Photos active='Mon-Fri 18:00-08:00, Sat-Sun'",
            ),
            ("Exchange nothing while the connection is metered:", "kinfold folder set Photos metered=pause"),
            ("Keep the past of a folder for a year:", "kinfold folder set Photos history_days=365"),
        ],
    },
    Note {
        page: "kinfold-folder-pause",
        about: &[
            "A folder that is paused is stopped: nothing is sent or received, and what is done in it is noticed only when \
             it goes on. To have it exchange nothing at certain times of the week, and take note of all the same, set \
             `active`; see kinfold-config(5).",
        ],
        exits: &[],
        examples: &[
            ("Let a folder rest for the evening:", "kinfold folder pause Photos --for 3h"),
            ("Until the office is empty:", "kinfold folder pause Photos --until 18:00"),
        ],
    },
    Note {
        page: "kinfold-limit",
        about: &[
            "Without `--send` and `--receive` it shows what is set. Where several rates apply, of all devices together, of \
             a device and of a folder, each of them is kept. A running daemon keeps to what is set at once.",
            "What is sent is counted to the byte, encryption included. What is received is asked for no faster than that, \
             up to 1 MiB at a time.",
        ],
        exits: &[],
        examples: &[
            ("Leave something of the line for others:", "kinfold limit --send '2 MiB/s' --receive '20 Mbit/s'"),
            ("Spare a device that is far away:", "kinfold limit --device nas --send '500 kB/s'"),
            ("As fast as it goes again:", "kinfold limit --send off --receive off"),
        ],
    },
    Note {
        page: "kinfold-conflicts",
        about: &["Without a command it lists them."],
        exits: &[(Exit::NeedsPerson as u8, "There are conflicts."), NO_DAEMON],
        examples: &[
            ("Let the edit of this device stay:", "kinfold conflicts keep ~/Photos/list.txt mine"),
            ("Put both edits into one file:", "kinfold conflicts merge ~/Photos/list.txt"),
        ],
    },
    Note {
        page: "kinfold-conflicts-list",
        about: &["Of the first 20 it is said which `kinfold conflicts merge` can settle."],
        exits: &[(Exit::NeedsPerson as u8, "There are conflicts."), NO_DAEMON],
        examples: &[],
    },
    Note {
        page: "kinfold-conflicts-show",
        about: &["Lines that only the file has are marked with -, those that only its copy has with +."],
        exits: &[NO_DAEMON],
        examples: &[],
    },
    Note {
        page: "kinfold-conflicts-merge",
        about: &[
            "What the file was before both edits tells which lines each side changed. Changes that lie apart are all made; \
             changes that overlap, or touch, are left to you. Bytes are kept as they are, line ends and a last line \
             without one included.",
            "Texts are merged: UTF-8 without a zero byte, up to 1 MiB and 10,000 lines. What they were lately is \
             remembered on each device as long as history is kept, for up to 8192 files and 64 MiB of each folder, and \
             of a file that was away for longer, or that both devices made anew, it is not known. Then another device may \
             know it.",
            "A folder with the setting `merge=text` does this by itself; see kinfold-config(5).",
        ],
        exits: &[NO_DAEMON],
        examples: &[("Say whether it can be done:", "kinfold conflicts merge ~/Photos/list.txt --dry-run")],
    },
    Note {
        page: "kinfold-conflicts-keep",
        about: &[
            "With `merged` the file stays as it is now: put into it what you want of both sides first. Where the edits do \
             not overlap kinfold-conflicts-merge(1) can do that.",
        ],
        exits: &[NO_DAEMON],
        examples: &[(
            "You have edited the file so that it has both:",
            "kinfold conflicts keep ~/Photos/list.txt merged",
        )],
    },
    Note {
        page: "kinfold-history",
        about: &[
            "History holds what other devices replaced or deleted here, and what a restore replaced. Edits that were \
             made here are in the histories of the devices that they reached: of these each state is shown once, with \
             who keeps it, and with the time at which it came there.",
        ],
        exits: &[NO_DAEMON],
        examples: &[
            ("List what is kept of a file:", "kinfold history ~/Photos/list.txt"),
            ("And what connected devices keep of it:", "kinfold history ~/Photos/list.txt --all"),
        ],
    },
    Note {
        page: "kinfold-restore",
        about: &[
            "What lies there now goes to history first, so a restore can be undone; where history would not keep it, it \
             stays beside the file as a conflict copy.",
            "What this device does not keep is taken from connected devices that may change the folder, and it is said \
             from which. Nothing is put in its place before all of it has arrived and is what its device said.",
            "Times may be said as `2026-05-31 18:00`, `18:00`, `yesterday 18:00`, `monday`, `friday noon` or `2 hours \
             ago`, on the clock of this machine.",
        ],
        exits: &[NO_DAEMON],
        examples: &[
            ("Bring back a file as it was before its last change:", "kinfold restore ~/Photos/list.txt"),
            (
                "Bring back a directory as it was at a time, elsewhere:",
                "kinfold restore ~/Photos --at '2026-05-31 18:00' --to ~/Photos-of-May",
            ),
            (
                "Out of the history of the device that keeps the longest:",
                "kinfold restore ~/Photos --at monday --from nas",
            ),
        ],
    },
    Note {
        page: "kinfold-verify",
        about: &["It reads all files, and so takes a while. The daemon does the same by itself, slowly."],
        exits: &[(Exit::NeedsPerson as u8, "Files are damaged."), NO_DAEMON],
        examples: &[("Check one folder, and mend what is damaged:", "kinfold verify Photos --heal")],
    },
    Note {
        page: "kinfold-inbox",
        about: &["Each thing comes with what to do about it."],
        exits: &[(Exit::NeedsPerson as u8, "Something waits."), NO_DAEMON],
        examples: &[],
    },
    Note {
        page: "kinfold-log",
        about: &[],
        exits: &[NO_DAEMON],
        examples: &[("Follow what happens:", "kinfold log --follow")],
    },
    Note {
        page: "kinfold-events",
        about: &[
            "Each object has a number `seq`, a `time` and a `kind`: written, deleted, directory, link, conflict, held, \
             healed, problem, connected or disconnected. Where they are known, `folder`, `path`, `device`, `size` and \
             `detail` say more. `device` is who made a change, wherever it came from.",
            "The daemon keeps the last 4096 of them. Numbers begin anew when it does.",
        ],
        exits: &[NO_DAEMON],
        examples: &[(
            "Say aloud what others have written:",
            "kinfold events | jq -r --unbuffered 'select(.kind == \"written\") | .path' | espeak",
        )],
    },
    Note {
        page: "kinfold-metrics",
        about: &[
            "With `--listen` it runs on as a process of its own, and asks the daemon each time that it is asked. While \
             there is no daemon it says `kinfold_up 0`.",
        ],
        exits: &[NO_DAEMON],
        examples: &[
            ("Answer Prometheus:", "kinfold metrics --listen 127.0.0.1:9725"),
            (
                "Leave them where the node exporter looks:",
                "kinfold metrics > /var/lib/node_exporter/textfile/kinfold.prom",
            ),
        ],
    },
    Note {
        page: "kinfold-service",
        about: &["With systemd or launchd. The unit that is written is the one that packages install."],
        exits: &[],
        examples: &[],
    },
    Note {
        page: "kinfold-service-install",
        about: &[],
        exits: &[],
        examples: &[
            ("Start it now and at every login:", "kinfold service install"),
            ("As root: start it for a user whenever the machine starts:", "kinfold service install --system alice"),
        ],
    },
    Note {
        page: "kinfold-service-status",
        about: &[],
        exits: &[(Exit::NoDaemon as u8, "It does not run.")],
        examples: &[],
    },
    Note {
        page: "kinfold-import-syncthing",
        about: &[
            "Folders are taken over with their names, paths, ignore patterns, rescan intervals and the days that old \
             versions are kept. Devices cannot be: ids there mean nothing here. What is to be done for each is printed, \
             and so is everything that is otherwise here.",
            "Nothing is overwritten. A folder is left out where its patterns cannot be translated, where it has other \
             rules already, and where its marker is missing, as on a disk that is not mounted.",
        ],
        exits: &[(Exit::NeedsPerson as u8, "A folder was left out, or would be.")],
        examples: &[(
            "See what would be done:",
            "kinfold import syncthing ~/.local/state/syncthing/config.xml --dry-run",
        )],
    },
    Note {
        page: "kinfold-completions",
        about: &["A package has installed them already."],
        exits: &[],
        examples: &[
            ("For bash:", "kinfold completions bash > ~/.local/share/bash-completion/completions/kinfold"),
            ("For fish:", "kinfold completions fish > ~/.config/fish/completions/kinfold.fish"),
        ],
    },
    Note {
        page: "kinfold-man",
        about: &["The directory gets pages of the sections 1, 5 and 7 beside each other."],
        exits: &[],
        examples: &[("Write them, and read the first:", "kinfold man pages && man pages/kinfold.1")],
    },
];
