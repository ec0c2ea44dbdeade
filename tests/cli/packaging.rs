//! What packages are made of: that nothing is missing from them, that what they say of versions is true, and that
//! what can be made here is sound. Where a tool is not there its part is left out, unless `KINFOLD_NEED_PACKAGES` is set.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kinfold");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs a command; `None` where there is no such program, and there need not be.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            assert!(std::env::var_os("KINFOLD_NEED_PACKAGES").is_none(), "{program}: {error}");
            eprintln!("{program} is missing: what it checks was not checked");
            None
        }
    }
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn all_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(all_below(&entry.path()));
        } else {
            found.insert(entry.path());
        }
    }
    found
}

fn installed(dir: &Path) -> BTreeSet<String> {
    let done = Command::new("packaging/install.sh").arg(PROGRAM).arg(dir).output().unwrap();
    assert!(done.status.success(), "{}", text_of(&done));
    all_below(dir).into_iter().map(|path| format!("/{}", path.strip_prefix(dir).unwrap().display())).collect()
}

#[test]
fn all_that_belongs_to_the_program_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let files = installed(dir.path());
    let mut wanted: BTreeSet<String> = [
        "/usr/bin/kinfold",
        "/usr/lib/systemd/system/kinfold@.service",
        "/usr/lib/systemd/user/kinfold.service",
        "/usr/share/bash-completion/completions/kinfold",
        "/usr/share/doc/kinfold/CHANGELOG.md",
        "/usr/share/doc/kinfold/README.md",
        "/usr/share/doc/kinfold/SECURITY.md",
        "/usr/share/fish/vendor_completions.d/kinfold.fish",
        "/usr/share/zsh/site-functions/_kinfold",
    ]
    .map(str::to_owned)
    .into();
    for page in fs::read_dir("man").unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        wanted.insert(format!("/usr/share/man/man{}/{name}", name.rsplit('.').next().unwrap()));
    }
    assert!(wanted.len() > 40, "the pages were not found");
    assert_eq!(files, wanted);
    // The units are those that `kinfold service install` writes, and name the place that packages put the program.
    for unit in files.iter().filter(|file| file.ends_with(".service")) {
        let text = fs::read_to_string(dir.path().join(&unit[1..])).unwrap();
        assert!(text.contains("\nExecStart=/usr/bin/kinfold serve\n"), "{unit}");
    }
}

#[test]
fn completions_load_in_their_shells() {
    let dir = tempfile::tempdir().unwrap();
    installed(dir.path());
    let at = |file: &str| dir.path().join(file).display().to_string();
    let bash = format!(
        "source {}; COMP_WORDS=(kinfold fol); COMP_CWORD=1; _kinfold kinfold fol kinfold; echo \"${{COMPREPLY[@]}}\"",
        at("usr/share/bash-completion/completions/kinfold")
    );
    let zsh = format!(
        "autoload -U compinit; fpath=({} $fpath); compinit -D -u; which _kinfold | head -n 3; echo ${{_comps[kinfold]}}",
        at("usr/share/zsh/site-functions")
    );
    let fish = format!("source {}; complete -C 'kinfold fol'", at("usr/share/fish/vendor_completions.d/kinfold.fish"));
    for (shell, args, wanted) in [
        ("bash", &["--norc", "-c", bash.as_str()][..], "folder"),
        ("zsh", &["-f", "-c", zsh.as_str()], "_kinfold"),
        ("fish", &["--no-config", "-c", fish.as_str()], "folder"),
    ] {
        let Some(output) = run(Command::new(shell).args(args).env("HOME", dir.path())) else { continue };
        let seen = text_of(&output);
        assert!(output.status.success() && seen.contains(wanted), "{shell}: {seen}");
        assert!(output.stderr.is_empty(), "{shell}: {seen}");
    }
}

#[test]
fn the_debian_package_is_sound() {
    if run(Command::new("dpkg-shlibdeps").arg("--version")).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut packages = vec![];
    for name in ["a", "b"] {
        let output = dir.path().join(name);
        fs::create_dir(&output).unwrap();
        let mut build = Command::new("packaging/deb/build.sh");
        build.arg(PROGRAM).arg(&output).env("SOURCE_DATE_EPOCH", "1700000000").env("DEBEMAIL", "kinfold@example.org");
        build.env("DEB_LEVEL", "0");
        let built = build.output().unwrap();
        assert!(built.status.success(), "{}", text_of(&built));
        packages.push(PathBuf::from(String::from_utf8(built.stdout).unwrap().trim()));
    }
    assert!(fs::read(&packages[0]).unwrap() == fs::read(&packages[1]).unwrap(), "two packages of one program differ");
    let ask = |args: &[&str]| text_of(&Command::new("dpkg-deb").args(args).arg(&packages[0]).output().unwrap());
    let control = ask(&["--field"]);
    assert!(control.contains(&format!("\nVersion: {VERSION}-1\n")), "{control}");
    assert!(control.contains("\nDepends: libc6 (>= "), "{control}");
    // All that install.sh puts there is in it, pages and changelog compressed.
    let listed = ask(&["--contents"]);
    let staged = dir.path().join("staged");
    fs::create_dir(&staged).unwrap();
    for file in installed(&staged) {
        let file = match file.as_str() {
            "/usr/share/doc/kinfold/CHANGELOG.md" => "/usr/share/doc/kinfold/changelog.gz".to_owned(),
            _ if file.contains("/man/") => format!("{file}.gz"),
            _ => file.replace("/zsh/site-functions/", "/zsh/vendor-completions/"),
        };
        assert!(listed.lines().any(|line| line.ends_with(&format!(" .{file}"))), "{file} is not in\n{listed}");
    }
    assert!(!listed.lines().any(|line| !line.contains(" root/root ")), "{listed}");
    // A program built for tests is larger and slower, but is packed in the same way.
    if let Some(lint) =
        run(Command::new("lintian").args(["--fail-on", "error,warning", "--allow-root"]).arg(&packages[0]))
    {
        assert!(lint.status.success(), "{}", text_of(&lint));
    }
    let refused = Command::new("packaging/deb/build.sh").arg(PROGRAM).arg(dir.path()).env_remove("DEBEMAIL").output();
    assert!(text_of(&refused.unwrap()).contains("DEBEMAIL is not set"));
}

#[test]
fn the_rpm_holds_what_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    let defines = [
        format!("_sourcedir {}", here.display()),
        format!("_topdir {}", dir.path().display()),
        format!("program {PROGRAM}"),
        // What a distribution does to files afterwards is its own, and this need not be one that has it.
        "__os_install_post %{nil}".to_owned(),
    ];
    let mut build = Command::new("rpmbuild");
    build.args(["-bb", "--quiet"]).args(defines.iter().flat_map(|define| ["--define", define]));
    let Some(built) = run(build.arg("packaging/rpm/kinfold.spec")) else { return };
    assert!(built.status.success(), "{}", text_of(&built));
    let rpms: Vec<_> = all_below(&dir.path().join("RPMS")).into_iter().collect();
    assert_eq!(rpms.len(), 1);
    assert!(rpms[0].file_name().unwrap().to_str().unwrap().starts_with(&format!("kinfold-{VERSION}-1.")), "{rpms:?}");
    let listed = text_of(&Command::new("rpm").args(["-qpl"]).arg(&rpms[0]).output().unwrap());
    let staged = dir.path().join("staged");
    fs::create_dir(&staged).unwrap();
    for file in installed(&staged) {
        assert!(
            listed.lines().any(|line| line.strip_suffix(".gz").unwrap_or(line) == file),
            "{file} is not in {listed}"
        );
    }
}

#[test]
fn packages_speak_of_this_version_and_say_what_was_not_run() {
    let read = |file: &str| fs::read_to_string(format!("packaging/{file}")).unwrap();
    assert!(read("rpm/kinfold.spec").contains(&format!("Version:        {VERSION}\n")));
    for file in ["arch/PKGBUILD", "alpine/APKBUILD"] {
        assert!(read(file).contains(&format!("\npkgver={VERSION}\n")), "{file}");
    }
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(read("container/Containerfile").contains(&format!("FROM docker.io/library/rust:{rust}-")));
    assert!(read("rpm/kinfold.spec").contains(&format!("cargo >= {rust}")));
    for file in
        ["arch/PKGBUILD", "alpine/APKBUILD", "openrc/kinfold.initd", "container/Containerfile", "nix/package.nix"]
    {
        let text = read(file);
        let head: String = text.lines().filter(|line| line.starts_with('#')).take(4).collect();
        assert!(head.contains("Not run by the tests") || head.contains("Not built by the tests"), "{file}");
    }
    // What is named in them is there.
    for file in all_below(Path::new("packaging")) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let words = text.split(|c: char| c.is_whitespace() || "'\"`()".contains(c));
        for word in words.filter_map(|word| word.find("packaging/").map(|at| &word[at..])) {
            let word = word.trim_end_matches(['.', ',', ':', ';']);
            assert!(Path::new(word).exists(), "{} speaks of {word}", file.display());
        }
    }
}

#[test]
fn scripts_are_what_their_shells_read() {
    let scripts: Vec<_> = all_below(Path::new("packaging"))
        .into_iter()
        .filter(|file| fs::read_to_string(file).is_ok_and(|text| text.starts_with("#!/bin/sh")))
        .collect();
    assert!(scripts.len() >= 5, "{scripts:?}");
    if let Some(checked) = run(Command::new("shellcheck").args(&scripts)) {
        assert!(checked.status.success(), "{}", text_of(&checked));
    }
    for file in ["arch/PKGBUILD", "alpine/APKBUILD", "openrc/kinfold.initd", "openrc/kinfold.confd"] {
        let read = Command::new("bash").arg("-n").arg(format!("packaging/{file}")).output().unwrap();
        assert!(read.status.success(), "{}", text_of(&read));
    }
}

#[test]
fn the_list_of_parts_names_what_is_built_in_and_only_that() {
    let Some(written) = run(Command::new("python3").arg("packaging/sbom.py").env("SOURCE_DATE_EPOCH", "1700000000"))
    else {
        return;
    };
    assert!(written.status.success(), "{}", text_of(&written));
    let bom: serde_json::Value = serde_json::from_slice(&written.stdout).unwrap();
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(bom["metadata"]["component"]["version"], VERSION);
    assert_eq!(bom["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    let parts = bom["components"].as_array().unwrap();
    let names: BTreeSet<&str> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
    // Each crate that the manifest names, and none that only tests need.
    let manifest: toml::Table = fs::read_to_string("Cargo.toml").unwrap().parse().unwrap();
    for name in manifest["dependencies"].as_table().unwrap().keys() {
        assert!(names.contains(name.as_str()), "{name}");
    }
    for name in ["proptest", "insta", "criterion", "assert_cmd"] {
        assert!(!names.contains(name), "{name}");
    }
    for part in parts {
        assert!(part["hashes"][0]["content"].as_str().is_some_and(|hash| hash.len() == 64), "{part}");
        assert!(part["licenses"][0]["expression"].is_string(), "{part}");
        let stands_on = bom["dependencies"].as_array().unwrap().iter();
        assert_eq!(stands_on.filter(|entry| entry["ref"] == part["bom-ref"]).count(), 1, "{part}");
    }
}
