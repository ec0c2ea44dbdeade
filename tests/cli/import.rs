//! Folders of Syncthing: what is taken over, that its patterns mean the same here, and that no file from
//! elsewhere does harm.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kinfold::cli::import::stignore::translate;
use kinfold::cli::import::syncthing;
use kinfold::disk::ignore::{Gitignores, Rules};
use kinfold::disk::root::Root;
use kinfold::model::id::FolderId;
use kinfold::model::path::RelPath;
use proptest::prelude::*;

use crate::Device;

/// What Syncthing's manual says of its patterns, as plainly as possible: a list of patterns, the first that
/// matches the whole path decides.
struct Oracle(Vec<OracleLine>);

struct OracleLine {
    negated: bool,
    folded: bool,
    patterns: Vec<Vec<char>>,
}

impl Oracle {
    fn read(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        Self(lines.map(OracleLine::read).collect())
    }

    fn ignores(&self, path: &str) -> bool {
        let first = path.split('/').next().unwrap();
        let name = path.rsplit('/').next().unwrap();
        let is_own = [".stfolder", ".stignore", ".stversions"].contains(&first);
        if is_own || name.starts_with(".syncthing.") || name.starts_with("~syncthing~") {
            return true;
        }
        self.0.iter().find(|line| line.matches(path)).is_some_and(|line| !line.negated)
    }
}

impl OracleLine {
    fn read(line: &str) -> Self {
        let (mut negated, mut folded, mut rest) = (false, false, line);
        loop {
            if let Some(after) = rest.strip_prefix('!') {
                (negated, rest) = (true, after);
            } else if let Some(after) = rest.strip_prefix("(?i)") {
                (folded, rest) = (true, after);
            } else if let Some(after) = rest.strip_prefix("(?d)") {
                rest = after;
            } else {
                break;
            }
        }
        let rest = if folded { rest.to_lowercase() } else { rest.to_owned() };
        // A pattern stands for what it matches and for all below; one that ends with a slash for that alone.
        let bodies = match (rest.ends_with("/**"), rest.ends_with('/')) {
            (true, _) => vec![rest],
            (_, true) => vec![rest + "**"],
            _ => vec![rest.clone(), rest + "/**"],
        };
        let mut patterns = vec![];
        for body in bodies {
            match body.strip_prefix('/') {
                Some(rooted) => patterns.push(rooted.to_owned()),
                // Anywhere: at the root, or in some directory.
                None => {
                    patterns.extend(body.strip_prefix("**/").map(str::to_owned));
                    patterns.extend([format!("**/{body}"), body]);
                }
            }
        }
        Self { negated, folded, patterns: patterns.into_iter().map(|pattern| pattern.chars().collect()).collect() }
    }

    fn matches(&self, path: &str) -> bool {
        let path = if self.folded { path.to_lowercase() } else { path.to_owned() };
        let path: Vec<char> = path.chars().collect();
        self.patterns.iter().any(|pattern| glob(pattern, &path))
    }
}

/// Whether a pattern matches all of a text.
fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', '*', rest @ ..] => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        ['*', rest @ ..] => {
            let most = text.iter().take_while(|c| **c != '/').count();
            (0..=most).any(|skip| glob(rest, &text[skip..]))
        }
        ['?', rest @ ..] => text.first().is_some_and(|c| *c != '/') && glob(rest, &text[1..]),
        ['\\'] => text.is_empty(),
        ['\\', c, rest @ ..] => text.first() == Some(c) && glob(rest, &text[1..]),
        ['[', rest @ ..] => {
            let end = rest.iter().position(|c| *c == ']').unwrap();
            let (class, rest) = (&rest[..end], &rest[end + 1..]);
            let (negated, class) = match class {
                ['!', class @ ..] => (true, class),
                class => (false, class),
            };
            let is_in = |c: &char| match class {
                [from, '-', to] => (from..=to).contains(&c),
                list => list.contains(c),
            };
            text.first().is_some_and(|c| is_in(c) != negated) && glob(rest, &text[1..])
        }
        ['{', rest @ ..] => {
            let end = rest.iter().position(|c| *c == '}').unwrap();
            let tail = &rest[end + 1..];
            rest[..end].split(|c| *c == ',').any(|one| glob(&[one, tail].concat(), text))
        }
        [c, rest @ ..] => text.first() == Some(c) && glob(rest, &text[1..]),
    }
}

/// A folder whose rules are those that were translated, for us and for git.
struct Translated {
    dir: tempfile::TempDir,
    root: Root,
}

impl Translated {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::create(&dir.path().join("folder"), FolderId([7; 16])).unwrap();
        let git = Command::new("git").args(["init", "-q"]).current_dir(root.path()).status().unwrap();
        assert!(git.success());
        Self { dir, root }
    }

    fn write(&self, text: &str) {
        fs::write(self.root.path().join(".kinfoldignore"), text).unwrap();
        fs::write(self.root.path().join(".gitignore"), text).unwrap();
    }

    /// Whether we leave out a path of a file.
    fn we_say(&self, path: &str) -> bool {
        let rules = Rules::new(Gitignores::Unused);
        rules.is_ignored(&self.root, &RelPath::parse(path.as_bytes()).unwrap(), false).unwrap()
    }

    /// Which of the paths git leaves out.
    fn git_says(&self, paths: &[String]) -> Vec<bool> {
        let mut git = Command::new("git")
            .args(["-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin"])
            .current_dir(self.root.path())
            .env("HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        git.stdin.take().unwrap().write_all((paths.join("\0") + "\0").as_bytes()).unwrap();
        let said = git.wait_with_output().unwrap().stdout;
        let said: Vec<_> = said.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
        paths.iter().map(|path| said.iter().any(|one| one == path)).collect()
    }
}

thread_local! {
    static FOLDER: RefCell<Option<Translated>> = const { RefCell::new(None) };
}

/// Checks that the translation of patterns leaves out the same files as they do, for us and for git.
fn means_the_same(patterns: &str, paths: &[String]) {
    let translated = translate(patterns, &mut |_| Err("none".to_owned())).unwrap();
    let oracle = Oracle::read(patterns);
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(Translated::new);
        folder.write(&translated.text);
        for (path, git) in paths.iter().zip(folder.git_says(paths)) {
            let wanted = oracle.ignores(path);
            let text = &translated.text;
            assert_eq!(folder.we_say(path), wanted, "{path}, by\n{patterns}\nwhich became\n{text}");
            assert_eq!(git, wanted, "git, {path}, by\n{patterns}\nwhich became\n{text}");
        }
    });
}

const PATHS: &[&str] = &[
    "foo",
    "Foo",
    "FOO",
    "foobar",
    "bar",
    "a",
    "b",
    "a/foo",
    "a/b",
    "a/b/foo",
    "a/b/c/foo",
    "foo/a",
    "foo/a/b",
    "foo/bar",
    "foo/bar/a",
    "foo/keep",
    "foo/x/keep",
    "a/foo/keep",
    "keep",
    "te/st",
    "test",
    "te/x/st",
    "texst",
    "a.tmp",
    "b/a.tmp",
    "a b",
    "x/a b",
    "#a",
    "!a",
    "é",
    "É",
    "x/é",
    "a/x/y/foo",
    "f\\o",
    "f*o",
    "f[o",
    "fxo",
    "ab",
    "a/B",
    "-",
    "]",
    "x]",
    "x-",
    "x^",
    "a{b",
    "a,b",
    ".stignore",
    ".stfolder",
    ".stversions/foo",
    "d/.stignore",
    ".syncthing.foo.tmp",
    "d/.syncthing.x",
    "~syncthing~a.tmp",
    "dir/.hg/x",
    "dir/.hg",
    "b/foo/bar",
];

fn paths() -> Vec<String> {
    PATHS.iter().map(|path| (*path).to_owned()).collect()
}

#[test]
fn each_kind_of_pattern_means_the_same() {
    for patterns in [
        "foo",
        "/foo",
        "foo/",
        "/foo/",
        "foo/**",
        "/foo/**",
        "foo/*",
        "**/foo",
        "/**/foo",
        "a/**/foo",
        "/a/**/foo",
        "a/**",
        "**",
        "/**",
        "*",
        "/*",
        "/",
        "**/",
        "/**/",
        "foo**",
        "**foo",
        "te**st",
        "/te**st",
        "a/f**o",
        "t*t",
        "fo?",
        "f?o",
        "?",
        "a?b",
        "/a?b",
        "[ab]",
        "[!ab]",
        "a[!x]b",
        "[a-c]",
        "[!a-c]b",
        "f[o]o",
        "[x]]",
        "[!x]",
        "[]",
        "(?i)foo",
        "(?i)FOO",
        "(?i)é",
        "(?i)[a-c]",
        "(?i)[!f]oo",
        "(?d)foo",
        "(?d)(?i)foo",
        "(?i)(?d)!keep\nfoo",
        "{foo,bar}",
        "{a,b}/foo",
        "a/{b,foo}/keep",
        "{foo/,b}ar",
        "/{a,b}",
        "fo{o,}",
        "{,foo}bar",
        "a{/**,b}",
        "f\\*o",
        "f\\[o",
        "f\\\\o",
        "\\#a",
        "#a",
        "\\!a",
        "a\\,b",
        "a\\{b",
        "a,b",
        "x]",
        "x-",
        "x^",
        "[-]",
        "[\\^x]",
        "a b",
        "  foo  ",
        "// foo\nbar",
        "!foo",
        "!foo\n*",
        "!keep\nfoo",
        "!/foo/keep\n/foo",
        "!/foo/keep\nfoo",
        "!foo/x/keep\n*",
        "foo\n!keep\n*",
        "!a/**/foo\n/a",
        "!/a/**/foo\n/a",
        "!/a/b/\n/a",
        "!/a/b\n*",
        "!a/b/\n*",
        "!**/keep\n*",
        "!te**st\n*",
        "/foo/bar\n!/foo\n*",
        "!*.tmp\na\n*",
        "/a\n!/a/b\n*",
        "!/*\n*",
        "!*\n*",
        "!/\n*",
        "!/a/b/c\n/a/b\n!/a\n*",
        "!.hg/x\n.hg",
        "!foo/bar/a\nfoo/bar\n!foo/\nfoo",
        "foo\nfoo\n!foo",
        "a//foo",
        "!{a,b}/foo\n{a,b}",
        "!(?i)B\na",
        "/./foo",
        "foo/bar",
        "/foo/bar",
        "foo/b*",
        ".*",
        "*.*",
        "[.-0]",
        "a[.-0]b",
        ".stignore",
        "!.stignore",
        "!/.stversions/foo",
        "\\foo",
        "foo\\",
    ] {
        let allowed = patterns != "[]";
        match translate(patterns, &mut |_| Err("none".to_owned())) {
            Ok(_) => means_the_same(patterns, &paths()),
            Err(error) => assert!(!allowed, "{patterns}: {error}"),
        }
    }
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["foo", "bar", "keep", "a", "b", "Foo", "é", "a.tmp", "x-y", ".hg"])
        .prop_map(str::to_owned)
}

fn paths_of_names() -> impl Strategy<Value = String> {
    prop::collection::vec(names(), 1..5).prop_map(|names| names.join("/"))
}

fn patterns() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => names(),
        1 => Just("*".to_owned()),
        1 => Just("**".to_owned()),
        1 => prop::sample::select(vec![
            "fo?", "f*", "*o", "f**", "**r", "k**p", "[a-c]", "[!a-e]", "[fb]?*", "{foo,bar}", "{a,b/c}", "{,x}b", "b{a/,}r",
            "*.tmp", "\\a", "a\\.tmp", ".*", "x[-.]y", "?[!a]?",
        ])
        .prop_map(str::to_owned),
    ];
    let body = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let flags = prop::sample::select(vec!["", "", "", "", "!", "!", "!", "(?i)", "(?d)", "!(?i)", "(?i)!"]);
    let ends = prop::sample::select(vec!["", "", "", "", "/", "/**"]);
    (flags, prop::sample::select(vec!["", "", "/"]), body, ends)
        .prop_map(|(flag, root, body, end)| format!("{flag}{root}{body}{end}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn made_up_patterns_mean_the_same(
        patterns in prop::collection::vec(patterns(), 1..7),
        paths in prop::collection::vec(paths_of_names(), 1..40),
    ) {
        means_the_same(&patterns.join("\n"), &paths);
    }
}

#[test]
fn patterns_that_are_none_and_patterns_without_end_are_refused() {
    let refuse = |patterns: &str| {
        let mut files = |name: &str| match name {
            "more" => Ok("bar\n".to_owned()),
            "d/loop" => Ok("#include loop\n".to_owned()),
            _ => Err("there is no such file".to_owned()),
        };
        translate(patterns, &mut files).unwrap_err().to_string()
    };
    for (patterns, why) in [
        ("foo\n[ab", ".stignore, line 2: `[ab`: has a class [...] that is none"),
        ("[b-a]", ".stignore, line 1: `[b-a]`: has a class [...] that is none"),
        ("[a-cx]", ".stignore, line 1: `[a-cx]`: has a class [...] that is none"),
        ("!", ".stignore, line 1: `!`: has no pattern"),
        ("(?i)", ".stignore, line 1: `(?i)`: has no pattern"),
        ("#include", ".stignore, line 1: #include names no file"),
        ("#include gone", ".stignore, line 1: gone cannot be included: there is no such file"),
        ("#include more\n#include  more", ".stignore, line 2: more is included more than once"),
        ("#include d/loop", "d/loop, line 1: d/loop is included more than once"),
        ("#escape=|", ".stignore, line 1: another escape character (#escape) cannot be translated"),
    ] {
        assert!(refuse(patterns).ends_with(why), "{}", refuse(patterns));
    }
    let bombs = ["{a,b}".repeat(30), "**a".repeat(40), "{".repeat(1000), "x".repeat(5000), "{a,b,c}**".repeat(12)];
    for bomb in bombs {
        let why = refuse(&bomb);
        assert!(["too many ways", "nests braces", "is longer"].iter().any(|part| why.contains(part)), "{why}");
    }
}

#[test]
fn included_files_count_where_they_are_included() {
    let mut files = |name: &str| match name {
        "sub/more" => Ok("!/keep\n#include third\n".to_owned()),
        "sub/third" => Ok("// of the third\nbar\n".to_owned()),
        _ => Err("none".to_owned()),
    };
    let translated = translate("// first\nfoo\n#include sub/more\n*\n", &mut files).unwrap();
    insta::assert_snapshot!(translated.text, @r#"
    # From the patterns of Syncthing. Here the last line that matches decides.
    *
    # of the third
    bar
    **/bar/**
    !/keep
    !/keep/**
    # first
    foo
    # What Syncthing never synced.
    .syncthing.*
    ~syncthing~*
    /.stfolder
    /.stignore
    /.stversions
    "#);
    assert_eq!(translated.patterns, 4);
}

const DEVICES: &str = r#"
    <device id="AAAAAAA-BBBBBBB-CCCCCCC-DDDDDDD-EEEEEEE-FFFFFFF-GGGGGGG-HHHHHHH" name="laptop" compression="metadata" introducer="true">
        <address>tcp://192.168.1.20:22000</address>
        <address>dynamic</address>
        <maxSendKbps>100</maxSendKbps>
    </device>
    <device id="2222222-BBBBBBB-CCCCCCC-DDDDDDD-EEEEEEE-FFFFFFF-GGGGGGG-HHHHHHH" name="my phone">
        <address>quic://phone.example:22000</address>
    </device>"#;

fn member(id: &str) -> String {
    format!(r#"<device id="{id}-BBBBBBB-CCCCCCC-DDDDDDD-EEEEEEE-FFFFFFF-GGGGGGG-HHHHHHH" introducedBy=""/>"#)
}

/// A configuration of five folders, all with something of their own, and the directories that it speaks of.
fn five_folders(device: &Device) -> String {
    for dir in ["photos", "docs", "music", "notes", "broken"] {
        device.make(dir);
        fs::create_dir(device.path(dir).join(".stfolder")).unwrap();
    }
    let photos = "// raw files are large\n(?i)*.raw\n!/best/keep.raw\n/best\n#include .stglobal\n";
    fs::write(device.path("photos/.stignore"), photos).unwrap();
    fs::write(device.path("photos/.stglobal"), "(?d).DS_Store\n").unwrap();
    fs::write(device.path("broken/.stignore"), "secret\n[a-\n").unwrap();
    let at = |dir: &str| device.path(dir).display().to_string();
    let config = format!(
        r#"<configuration version="37">
    <folder id="abcd-efgh" label="Photos" path="{photos}/" type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="true" ignorePerms="true">
        <filesystemType>basic</filesystemType>
        {laptop}
        {phone}
        <minDiskFree unit="%">1</minDiskFree>
        <versioning type="staggered"><cleanupIntervalS>3600</cleanupIntervalS><param key="maxAge" val="7776000"/></versioning>
        <hashers>4</hashers>
        <futureOption>yes</futureOption>
    </folder>
    <folder id="docs" label="Photos" path="{docs}" type="sendonly" rescanIntervalS="90">
        {phone}
        <versioning type="external"><param key="command" val="rm -rf"/></versioning>
        <ignoreDelete>true</ignoreDelete>
    </folder>
    <folder id="mu" label="" path="{music}" type="receiveonly">{laptop}</folder>
    <folder id="notes" label="Notes" path="{notes}"><paused>true</paused><markerName>.stfolder</markerName></folder>
    <folder id="broken" label="Broken" path="{broken}"></folder>
    {DEVICES}
    <options><listenAddress>default</listenAddress><maxSendKbps>10</maxSendKbps></options>
    <gui enabled="true"><user>me</user></gui>
    <telemetry>yes</telemetry>
</configuration>"#,
        photos = at("photos"),
        docs = at("docs"),
        music = at("music"),
        notes = at("notes"),
        broken = at("broken"),
        laptop = member("AAAAAAA"),
        phone = member("2222222"),
    );
    fs::write(device.path("config.xml"), &config).unwrap();
    config
}

#[test]
fn five_folders_are_taken_over() {
    let device = Device::new();
    five_folders(&device);
    let before = device.config();
    insta::assert_snapshot!(device.run(&["import", "syncthing", "config.xml", "--dry-run"]), @r#"
    exit 4
    --- stdout
    `Photos` would be taken over: [dir]/photos, 4 patterns
      history_days = 90
      .kinfoldignore would be:
        # From the patterns of Syncthing. Here the last line that matches decides.
        .DS_Store
        **/.DS_Store/**
        /best
        /best/**
        !/best/
        !/best/keep.raw
        !/best/keep.raw/**
        # raw files are large
        *.[Rr][Aa][Ww]
        # What Syncthing never synced.
        .syncthing.*
        ~syncthing~*
        /.stfolder
        /.stignore
        /.stversions
      (?d) has no counterpart: what is left out is never deleted here, also where it keeps a directory from being deleted
      directories that were left out, but may hold what is let in again, are synced without their other content
      permissions are synced here: ignorePerms has no counterpart
      all versions are kept for the same time here, and not fewer of the older ones
      old versions that Syncthing kept stay in .stversions; here history is kept in `.kinfold`, also within `history_size`
      has no counterpart, and changes nothing but speed and order: hashers=4
      not known, and not taken over: futureOption=yes
    `Photos (docs)` would be taken over: [dir]/docs, 0 patterns
      rescan_minutes = 2
      this device only sends it: share it with others as `reader`
      .kinfoldignore would be:
        # From the patterns of Syncthing. Here the last line that matches decides.
        # What Syncthing never synced.
        .syncthing.*
        ~syncthing~*
        /.stfolder
        /.stignore
        /.stversions
      deletions of other devices count here: ignoreDelete has no counterpart. What they delete is kept in the history, and masses of it are held until you look
      an external program for old versions is not taken over
      old versions that Syncthing kept stay in .stversions; here history is kept in `.kinfold`, also within `history_size`
    `mu` has to come from the device that sends it: [dir]/music
      there: kinfold folder share NAME THIS-DEVICE:reader
      here:  kinfold folder accept NAME [dir]/music --from THAT-DEVICE
      its .stignore stays as it is; what is left out is said in the .kinfoldignore of that device
    `Notes` would be taken over: [dir]/notes, 0 patterns
      rests, as it did there
      .kinfoldignore would be:
        # From the patterns of Syncthing. Here the last line that matches decides.
        # What Syncthing never synced.
        .syncthing.*
        ~syncthing~*
        /.stfolder
        /.stignore
        /.stversions
    `Broken` is left out: its patterns cannot be translated: .stignore, line 2: `[a-`: has a class [...] that is none
      without them more would be synced than before; change that line, then run this once more
    Otherwise
      limits of rates are not taken over: set them with `kinfold limit`
      not known, and not taken over: telemetry
      discovery over the Internet, relays and port mapping have no counterpart: devices talk to each other directly, over networks that count as local unless the configuration says otherwise
    Devices to be trusted anew, each on both sides, but for this one, which is among them
      laptop (AAAAAAA-BBBBBBB-CCCCCCC-DDDDDDD-EEEEEEE-FFFFFFF-GGGGGGG-HHHHHHH)
        kinfold device add ID --name laptop --address 192.168.1.20
        kinfold folder share Photos laptop
        devices are trusted one by one here: an introducer has no counterpart
        its limits of rates are not taken over: set them with `kinfold limit`
      my phone (2222222-BBBBBBB-CCCCCCC-DDDDDDD-EEEEEEE-FFFFFFF-GGGGGGG-HHHHHHH)
        kinfold device add ID --name 'my phone'
        kinfold folder share Photos 'my phone'
        kinfold folder share 'Photos (docs)' 'my phone:reader'
        the address quic://phone.example:22000 is not taken over
    Then, on each of these devices, into the directory where the folder lies there already:
      kinfold folder accept NAME PATH --from desk
    Let only one of the two programs run in a folder: stop Syncthing before kinfold is started.
    "#);
    assert_eq!(device.config(), before);
    assert!(!device.path("photos/.kinfoldignore").exists());
    insta::assert_snapshot!(device.run(&["import", "syncthing", "config.xml"]), @r#"
    exit 4
    --- stdout
    `Photos` is taken over: [dir]/photos, 4 patterns
      history_days = 90
      (?d) has no counterpart: what is left out is never deleted here, also where it keeps a directory from being deleted
      directories that were left out, but may hold what is let in again, are synced without their other content
      permissions are synced here: ignorePerms has no counterpart
      all versions are kept for the same time here, and not fewer of the older ones
      old versions that Syncthing kept stay in .stversions; here history is kept in `.kinfold`, also within `history_size`
      has no counterpart, and changes nothing but speed and order: hashers=4
      not known, and not taken over: futureOption=yes
    `Photos (docs)` is taken over: [dir]/docs, 0 patterns
      rescan_minutes = 2
      this device only sends it: share it with others as `reader`
      deletions of other devices count here: ignoreDelete has no counterpart. What they delete is kept in the history, and masses of it are held until you look
      an external program for old versions is not taken over
      old versions that Syncthing kept stay in .stversions; here history is kept in `.kinfold`, also within `history_size`
    `mu` has to come from the device that sends it: [dir]/music
      there: kinfold folder share NAME THIS-DEVICE:reader
      here:  kinfold folder accept NAME [dir]/music --from THAT-DEVICE
      its .stignore stays as it is; what is left out is said in the .kinfoldignore of that device
    `Notes` is taken over: [dir]/notes, 0 patterns
      rests, as it did there
    `Broken` is left out: its patterns cannot be translated: .stignore, line 2: `[a-`: has a class [...] that is none
      without them more would be synced than before; change that line, then run this once more
    Otherwise
      limits of rates are not taken over: set them with `kinfold limit`
      not known, and not taken over: telemetry
      discovery over the Internet, relays and port mapping have no counterpart: devices talk to each other directly, over networks that count as local unless the configuration says otherwise
    Devices to be trusted anew, each on both sides, but for this one, which is among them
      laptop (AAAAAAA-BBBBBBB-CCCCCCC-DDDDDDD-EEEEEEE-FFFFFFF-GGGGGGG-HHHHHHH)
        kinfold device add ID --name laptop --address 192.168.1.20
        kinfold folder share Photos laptop
        devices are trusted one by one here: an introducer has no counterpart
        its limits of rates are not taken over: set them with `kinfold limit`
      my phone (2222222-BBBBBBB-CCCCCCC-DDDDDDD-EEEEEEE-FFFFFFF-GGGGGGG-HHHHHHH)
        kinfold device add ID --name 'my phone'
        kinfold folder share Photos 'my phone'
        kinfold folder share 'Photos (docs)' 'my phone:reader'
        the address quic://phone.example:22000 is not taken over
    Then, on each of these devices, into the directory where the folder lies there already:
      kinfold folder accept NAME PATH --from desk
    Let only one of the two programs run in a folder: stop Syncthing before kinfold is started.
    "#);
    insta::assert_snapshot!(fs::read_to_string(device.path("photos/.kinfoldignore")).unwrap(), @r#"
    # From the patterns of Syncthing. Here the last line that matches decides.
    .DS_Store
    **/.DS_Store/**
    /best
    /best/**
    !/best/
    !/best/keep.raw
    !/best/keep.raw/**
    # raw files are large
    *.[Rr][Aa][Ww]
    # What Syncthing never synced.
    .syncthing.*
    ~syncthing~*
    /.stfolder
    /.stignore
    /.stversions
    "#);
    insta::assert_snapshot!(device.run(&["folder", "list"]), @r#"
    exit 0
    --- stdout
    Photos         [dir]/photos  active
    Photos (docs)  [dir]/docs    active
    Notes          [dir]/notes   paused
    "#);
    // What was done is not done twice; what could not be done is, once it can be.
    let config = device.config();
    fs::write(device.path("broken/.stignore"), "secret\n").unwrap();
    let again = device.run(&["import", "syncthing", "config.xml"]);
    assert!(again.starts_with("exit 0") && again.contains("`Photos` is synced already"), "{again}");
    assert!(again.contains("`Broken` is taken over"), "{again}");
    assert!(device.config().starts_with(config.trim_end()), "{}", device.config());
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let device = Device::new();
    five_folders(&device);
    fs::write(device.path("photos/.kinfoldignore"), "mine\n").unwrap();
    fs::remove_dir(device.path("docs/.stfolder")).unwrap();
    device.make("other");
    device.ok(&["folder", "add", "other", "--name", "Notes"]);
    let seen = device.run(&["import", "syncthing", "config.xml"]);
    assert!(seen.starts_with("exit 4"), "{seen}");
    assert!(
        seen.contains("`Photos` is left out: [dir]/photos/.kinfoldignore exists already, with other rules"),
        "{seen}"
    );
    assert!(seen.contains("[dir]/docs/.stfolder is missing"), "{seen}");
    assert!(seen.contains("`Notes (notes)` is taken over") || seen.contains("`notes` is taken over"), "{seen}");
    assert_eq!(fs::read_to_string(device.path("photos/.kinfoldignore")).unwrap(), "mine\n");
    assert!(!device.config().contains("/photos"));
}

#[test]
fn this_device_is_known_by_its_certificate() {
    let device = Device::new();
    let config = five_folders(&device);
    // The id of these bytes, with the check characters that Syncthing would put in, of whatever value.
    let id = syncthing::id_of_certificate("-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----").unwrap();
    let with_checks: Vec<String> =
        id.as_bytes().chunks(13).map(|part| String::from_utf8_lossy(part) + "A").map(Into::into).collect();
    let with_checks = with_checks.join("-");
    assert!(syncthing::is_id(&with_checks, &id) && !syncthing::is_id(&id, &id));
    let laptop = "AAAAAAA-BBBBBBB-CCCCCCC-DDDDDDD-EEEEEEE-FFFFFFF-GGGGGGG-HHHHHHH";
    fs::write(device.path("config.xml"), config.replace(laptop, &with_checks)).unwrap();
    fs::write(device.path("cert.pem"), "-----BEGIN CERTIFICATE-----\nTUlJQg==\n-----END CERTIFICATE-----\n").unwrap();
    let seen = device.run(&["import", "syncthing", "config.xml", "--dry-run"]);
    assert!(!seen.contains("--name laptop") && seen.contains("'my phone'"), "{seen}");
}

#[test]
fn a_file_that_is_no_configuration_is_refused() {
    let device = Device::new();
    let before = device.config();
    let bomb =
        "<!DOCTYPE c [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><configuration>&b;</configuration>";
    let outside = "<!DOCTYPE c [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><configuration>&a;</configuration>";
    let deep = format!("<configuration><folder id='a' path='/'>{}", "<x>".repeat(200_000));
    let nested = format!(
        "<configuration><folder id='a' path='/x'>{}{}</folder></configuration>",
        "<x>".repeat(5_000),
        "</x>".repeat(5_000)
    );
    let many = format!("<configuration>{}</configuration>", "<device/>".repeat(1_100_000));
    for (text, why) in [
        ("", "it is not well-formed"),
        ("<configuration>", "it is not well-formed"),
        ("<configuration><folder id=\"a\"></configuration>", "it is not well-formed"),
        (bomb, "it is not well-formed: XML with DTD detected"),
        (outside, "it is not well-formed: XML with DTD detected"),
        (&deep, "it is not well-formed"),
        (&nested, "its elements are nested more than 64 deep"),
        (&many, "it is not well-formed: nodes limit reached"),
        ("<html/>", "its first element is <html>, and not <configuration>"),
        ("<configuration>\n<folder path='/a'/></configuration>", "line 2: a folder without `id`"),
        ("<configuration><folder id='a'/></configuration>", "line 1: a folder without `path`"),
        ("<configuration><folder id='a' path='/x' type='\u{1b}[2J'/></configuration>", "it is not well-formed"),
        ("<configuration><folder id='a' path='/x' type='odd'/></configuration>", "a folder of the type `odd`"),
        ("<configuration><device name='a'/></configuration>", "a device without `id`"),
    ] {
        fs::write(device.path("config.xml"), text).unwrap();
        let seen = device.run(&["import", "syncthing", "config.xml"]);
        assert!(seen.starts_with("exit 1\n") && seen.contains(why), "{seen}");
        assert_eq!(device.config(), before);
    }
    fs::write(device.path("config.xml"), b"<configuration>\xff</configuration>").unwrap();
    assert!(device.run(&["import", "syncthing", "config.xml"]).contains("it is not UTF-8"));
    let long = fs::File::create(device.path("config.xml")).unwrap();
    long.set_len(syncthing::CONFIG_LEN_MAX + 1).unwrap();
    assert!(device.run(&["import", "syncthing", "config.xml"]).contains("it is longer than"));
    assert!(device.run(&["import", "syncthing", "gone.xml"]).contains("cannot read gone.xml"));
}

#[test]
fn what_a_configuration_says_cannot_steer_a_terminal_or_a_shell() {
    let device = Device::new();
    let odd = "<configuration><folder id='i&#x202e;d' label='a&#x9b;b' path='relative'/>\
               <device id='x' name=\"it's; rm -rf ~\"/><od&#x301;d/></configuration>"
        .replace("<od&#x301;d/>", "<odd>\u{202e}</odd>");
    fs::write(device.path("config.xml"), odd).unwrap();
    let seen = device.run(&["import", "syncthing", "config.xml", "--dry-run"]);
    assert!(!seen.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{seen:?}");
    assert!(seen.contains(r"kinfold device add ID --name 'it'\''s; rm -rf ~'"), "{seen}");
    assert!(Path::new(&device.path("config.xml")).exists());
}
