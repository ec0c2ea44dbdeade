//! Names of conflict copies: the same on every device that has to make one.

use crate::engine::index::Index;
use crate::model::id::DeviceTag;
use crate::model::limits::{NAME_LEN_MAX, PATH_LEN_MAX};
use crate::model::path::RelPath;
use crate::model::record::Body;

const MARK: &[u8] = b".conflict-";

/// Digits of the hash that stands for what a name had to lose.
const LOST_LEN: usize = 8;

/// Returns the time that names the conflict copies of a version: the modification time of a file.
///
/// The times of links and directories are nobody's but the disk's. What a link points to stands for it, as a moment of
/// the first day of 1970: so different links that two devices made to copies at the same time have different names.
pub fn time_of(body: &Body) -> i64 {
    const DAY_SECONDS: u32 = 24 * 60 * 60;
    match body {
        Body::File(file) => file.mtime_ns,
        Body::Symlink { target } => {
            let [a, b, c, d, ..] = *blake3::hash(target).as_bytes();
            i64::from(u32::from_le_bytes([a, b, c, d]) % DAY_SECONDS) * 1_000_000_000
        }
        Body::Dir { .. } | Body::Tombstone => 0,
    }
}

/// Returns the path of the conflict copy of `path`: `name.conflict-YYYYMMDD-HHMMSS-DEVICE.ext`.
///
/// The time is the losing version's own in UTC ([`time_of`]), and the device is who made it, so
/// that all who hold the losing version give its copy the same name. `number` tells apart further
/// copies that would have the same name (1 adds nothing). An overlong name loses characters of its
/// stem, never of the mark; `~` and a hash of the name then stand for them, so that copies of different
/// files have different names, and a copy's file can be found ([`original`]).
pub fn copy_path(path: &RelPath, mtime_ns: i64, by: DeviceTag, number: u32) -> RelPath {
    let mut mark = MARK.to_vec();
    mark.extend_from_slice(utc_stamp(mtime_ns).as_bytes());
    mark.extend_from_slice(format!("-{by}").as_bytes());
    if number > 1 {
        mark.extend_from_slice(format!("-{number}").as_bytes());
    }
    with_mark(path, &mark).unwrap_or_else(|| path.clone())
}

fn with_mark(path: &RelPath, mark: &[u8]) -> Option<RelPath> {
    let name = path.name();
    let (stem, extension) = split_extension(name);
    let room_in_path = PATH_LEN_MAX - (path.as_bytes().len() - name.len());
    let room = NAME_LEN_MAX.min(room_in_path).saturating_sub(mark.len() + extension.len());
    let mut copy = stem.to_vec();
    if stem.len() > room {
        let lost = blake3::hash(name).to_hex();
        let lost = format!("~{}", &lost[..LOST_LEN]);
        copy.truncate(cut_at_character(stem, room.saturating_sub(lost.len())));
        copy.extend_from_slice(&lost.as_bytes()[..lost.len().min(room)]);
    }
    copy.extend_from_slice(mark);
    copy.extend_from_slice(extension);
    path.with_name(&copy).ok()
}

/// Returns whether one path is that of a conflict copy of the other.
pub fn is_copy_of(copy: &RelPath, original: &RelPath) -> bool {
    copy.parent() == original.parent()
        && parts(copy.name()).is_some_and(|parts| with_mark(original, parts.mark).as_ref() == Some(copy))
}

/// Finds the path that a conflict copy is a copy of, which its name alone does not tell where it had to
/// be shortened; `None` where the path is not that of a copy.
///
/// # Errors
/// The index failed.
pub fn original<I: Index>(index: &I, copy: &RelPath) -> Result<Option<RelPath>, I::Error> {
    let Some(by_name) = copy_of(copy) else {
        return Ok(None);
    };
    // A shortened name leads to another, which nothing is known of.
    if index.local(&by_name)?.is_some() {
        return Ok(Some(by_name));
    }
    let beside = index.children(copy.parent().as_ref())?;
    let found = beside.into_iter().map(|local| local.record.path).find(|path| is_copy_of(copy, path));
    Ok(Some(found.unwrap_or(by_name)))
}

/// Returns whether the name is that of a conflict copy.
pub fn is_copy(path: &RelPath) -> bool {
    copy_of(path).is_some()
}

/// Returns the path that a conflict copy is a copy of, judging by its name; see [`original`].
pub fn copy_of(path: &RelPath) -> Option<RelPath> {
    let Parts { stem, extension, .. } = parts(path.name())?;
    path.with_name(&[stem, extension].concat()).ok()
}

/// The name of a conflict copy, taken apart.
struct Parts<'a> {
    stem: &'a [u8],
    mark: &'a [u8],
    extension: &'a [u8],
}

fn parts(name: &[u8]) -> Option<Parts<'_>> {
    let at = name.windows(MARK.len()).rposition(|window| window == MARK)?;
    let (stem, rest) = name.split_at(at);
    let stamp = rest.get(MARK.len()..MARK.len() + 15)?;
    let is_stamp = stamp.iter().enumerate().all(|(n, b)| if n == 8 { *b == b'-' } else { b.is_ascii_digit() });
    let device = rest[MARK.len() + 15..].strip_prefix(b"-")?;
    let end = device.iter().position(|b| *b == b'.').unwrap_or(device.len());
    if !is_stamp || end == 0 || !device[..end].iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
        return None;
    }
    let (mark, extension) = rest.split_at(rest.len() - (device.len() - end));
    Some(Parts { stem, mark, extension })
}

/// Splits off the extension, with its dot; a leading dot does not begin one, and neither does a dot
/// so far from the end that it is part of the name.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|b| *b == b'.') {
        Some(at) if at > 0 && name.len() - at <= 32 => name.split_at(at),
        _ => (name, b""),
    }
}

/// Returns the greatest length up to `room` that does not cut a UTF-8 character in two.
fn cut_at_character(bytes: &[u8], room: usize) -> usize {
    let mut at = bytes.len().min(room);
    while at > 0 && at < bytes.len() && bytes[at] & 0xc0 == 0x80 && room - at < 4 {
        at -= 1;
    }
    at
}

/// Writes a time as `YYYYMMDD-HHMMSS` in UTC, by the proleptic Gregorian calendar. Times outside the
/// years 0 to 9999 are brought to the nearest end.
///
/// Days to date: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn utc_stamp(ns: i64) -> String {
    const DAY: i64 = 86_400;
    let seconds = ns.div_euclid(1_000_000_000).clamp(-62_167_219_200, 253_402_300_799);
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}-{h:02}{m:02}{s:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::index::Local;
    use crate::engine::memory_index::MemoryIndex;
    use crate::model::id::{Incarnation, Sequence};
    use crate::model::record::{Body, Record};
    use crate::model::version::VersionVector;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    const BY: DeviceTag = DeviceTag([0; 5]);

    #[test]
    fn links_that_lead_elsewhere_have_copies_of_other_names() {
        let link = |target: &str| Body::Symlink { target: target.as_bytes().into() };
        let name = |target: &str| copy_path(&path("l"), time_of(&link(target)), BY, 1);
        assert_eq!(name("here"), name("here"));
        assert_ne!(name("here"), name("there"));
        assert!(name("here").to_string().starts_with("l.conflict-19700101-"), "{}", name("here"));
    }

    #[test]
    fn a_copy_lies_beside_the_file_and_keeps_its_extension() {
        for (original, copy) in [
            ("d/report.odt", "d/report.conflict-20231114-221320-qqqqqqq.odt"),
            ("Makefile", "Makefile.conflict-20231114-221320-qqqqqqq"),
            (".bashrc", ".bashrc.conflict-20231114-221320-qqqqqqq"),
            ("a.tar.gz", "a.tar.conflict-20231114-221320-qqqqqqq.gz"),
        ] {
            let made = copy_path(&path(original), 1_700_000_000_000_000_000, BY, 1);
            assert_eq!(made, path(copy));
            assert_eq!(copy_of(&made), Some(path(original)));
        }
    }

    #[test]
    fn a_further_copy_gets_a_number() {
        let second = copy_path(&path("f.txt"), 0, BY, 2);
        assert_eq!(second, path("f.conflict-19700101-000000-qqqqqqq-2.txt"));
        assert_eq!(copy_of(&second), Some(path("f.txt")));
    }

    #[test]
    fn a_copy_of_a_copy_is_possible() {
        let copy = copy_path(&path("f"), 0, BY, 1);
        let again = copy_path(&copy, 1_000_000_000, BY, 1);
        assert_ne!(copy, again);
        assert_eq!(copy_of(&again), Some(copy));
    }

    #[test]
    fn a_longest_name_still_gets_a_copy() {
        for name in ["n".repeat(255), "é".repeat(127), format!("{}.txt", "n".repeat(251))] {
            let copy = copy_path(&path(&name), i64::MAX, BY, 99);
            assert!(copy.name().len() <= NAME_LEN_MAX);
            assert!(is_copy(&copy), "{copy}");
            assert!(std::str::from_utf8(copy.name()).is_ok(), "{copy}");
            assert!(is_copy_of(&copy, &path(&name)), "{copy}");
        }
    }

    #[test]
    fn a_copy_with_a_shortened_name_still_leads_to_its_own_file() {
        let names = ["a", "b", "c.txt"].map(|end| path(&format!("d/{}{end}", "n".repeat(250))));
        let mut index = MemoryIndex::new(Incarnation(1));
        for (number, name) in names.iter().enumerate() {
            let record =
                Record { path: name.clone(), version: VersionVector::default(), by: BY, body: Body::Tombstone };
            let local = Local { record, sequence: Sequence(number as u64), stat: None, ignored: false, since_ns: 0 };
            index.set_local(&local, None).unwrap();
        }
        for name in &names {
            let copy = copy_path(name, 0, BY, 3);
            assert_ne!(copy_of(&copy).as_ref(), Some(name));
            assert_eq!(original(&index, &copy).unwrap().as_ref(), Some(name));
            assert_eq!(names.iter().filter(|other| is_copy_of(&copy, other)).count(), 1);
        }
        let plain = copy_path(&path("d/f.txt"), 0, BY, 3);
        // Also where its file is gone and forgotten.
        assert_eq!(original(&index, &plain).unwrap(), Some(path("d/f.txt")));
        assert!(is_copy_of(&plain, &path("d/f.txt")) && !is_copy_of(&plain, &path("f.txt")));
        assert_eq!(original(&index, &path("d/f.txt")).unwrap(), None);
    }

    #[test]
    fn a_longest_path_still_gets_a_copy() {
        let long = path(&format!("{}{}", "d/".repeat(511), "n".repeat(200)));
        let longest = path(&format!("{}/{}", vec!["d".repeat(200); 20].join("/"), "n".repeat(75)));
        for path in [long, longest] {
            let copy = copy_path(&path, 0, BY, 2);
            assert!(is_copy(&copy) && copy != path, "{copy}");
        }
    }

    #[test]
    fn ordinary_names_are_no_copies() {
        for name in
            ["f", "f.conflict-", "f.conflict-2023-1", "f.conflict-20231114-22132x-a", "f.conflict-20231114-221320"]
        {
            assert!(!is_copy(&path(name)), "{name}");
        }
    }

    #[test]
    fn times_far_off_are_still_times() {
        assert_eq!(utc_stamp(i64::MAX), "22620411-234716");
        assert_eq!(utc_stamp(i64::MIN), "16770921-001243");
        assert_eq!(utc_stamp(951_782_400_000_000_000), "20000229-000000");
        assert_eq!(utc_stamp(-1), "19691231-235959");
    }
}
