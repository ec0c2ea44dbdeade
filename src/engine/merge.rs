//! Puts together two edits of one text that were made apart, where they do not meet.
//!
//! A merge of three: what the text was before both edits tells which lines each side changed. Changes that
//! lie apart are all made; where both sides made the very same change it is made once. Where they meet,
//! even where one only touches the other, nothing is guessed: that is for a person.
//!
//! Bytes are kept as they are. A line ends with its line feed, and a carriage return before that is part
//! of the line; a last line without an end is another line than the same with one. The result is the same
//! whichever side comes first, on every device: nothing here depends on the time or on chance.

use std::collections::BTreeMap;
use std::ops::Range;

use similar::{Algorithm, DiffTag, capture_diff_slices};

use crate::model::limits::{MERGE_LEN_MAX, MERGE_LINES_MAX};

/// Why two edits were not put together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MergeError {
    /// The edits meet.
    #[error("the edits overlap at line {line}")]
    Overlap {
        /// The first line at which they do, in the first side.
        line: usize,
    },
    /// One of the three is no text: it is not UTF-8, or holds a zero byte.
    #[error("it is no text")]
    NotText,
    /// One of the three is longer than what is merged.
    #[error("it is too long: texts of up to {} MiB and {MERGE_LINES_MAX} lines are merged", MERGE_LEN_MAX >> 20)]
    TooLong,
}

/// Returns whether bytes are a text that can be merged: UTF-8, no zero byte, not too long.
pub fn is_text(bytes: &[u8]) -> bool {
    lines(bytes).is_ok()
}

/// Returns what came of a text by both edits.
pub fn merge(base: &[u8], one: &[u8], other: &[u8]) -> Result<Vec<u8>, MergeError> {
    let (base, one, other) = (lines(base)?, lines(one)?, lines(other)?);
    let mut numbers = Numbers::default();
    let (base_numbers, one_numbers, other_numbers) = (numbers.of(&base), numbers.of(&one), numbers.of(&other));
    let mut left = changes(&base_numbers, &one_numbers);
    let mut right = changes(&base_numbers, &other_numbers);

    let mut merged: Vec<&[u8]> = Vec::new();
    let mut base_at = 0;
    // How far the two sides are ahead of the text before, in lines: where a line of it lies there.
    let (mut one_ahead, mut other_ahead) = (0, 0);
    while let Some(first) = [left.first(), right.first()].into_iter().flatten().map(|change| change.base.start).min() {
        let mut region = first..first;
        let (left_len, right_len) = grow(&left, &right, &mut region);
        let in_one = place(&region, &left[..left_len], &mut one_ahead);
        let in_other = place(&region, &right[..right_len], &mut other_ahead);
        merged.extend(&base[base_at..region.start]);
        merged.extend(match (left_len, right_len) {
            (_, 0) => &one[in_one],
            (0, _) => &other[in_other],
            _ if one_numbers[in_one.clone()] == other_numbers[in_other] => &one[in_one],
            _ => return Err(MergeError::Overlap { line: in_one.start + 1 }),
        });
        base_at = region.end;
        left.drain(..left_len);
        right.drain(..right_len);
    }
    merged.extend(&base[base_at..]);
    Ok(merged.concat())
}

/// One change: lines of the text before, and those that came in their place.
#[derive(Debug)]
struct Change {
    base: Range<usize>,
    side: Range<usize>,
}

/// Returns the changes of one side, in order.
///
/// What the library says is tried out: with a change that is told wrong, lines would be lost. Where it does not lead to the
/// side, all of it counts as changed.
fn changes(base: &[u32], side: &[u32]) -> Vec<Change> {
    let ops = capture_diff_slices(Algorithm::Myers, base, side);
    let changed = ops.into_iter().filter(|op| op.tag() != DiffTag::Equal);
    let changes: Vec<_> = changed.map(|op| Change { base: op.old_range(), side: op.new_range() }).collect();
    match leads_to(base, side, &changes) {
        true => changes,
        false => vec![Change { base: 0..base.len(), side: 0..side.len() }],
    }
}

/// Returns whether the changes make one text of the other.
fn leads_to(base: &[u32], side: &[u32], changes: &[Change]) -> bool {
    let mut made = Vec::with_capacity(side.len());
    let mut at = 0;
    for change in changes {
        let (Some(kept), Some(new)) = (base.get(at..change.base.start), side.get(change.side.clone())) else {
            return false;
        };
        made.extend_from_slice(kept);
        if made.len() != change.side.start {
            return false;
        }
        made.extend_from_slice(new);
        at = change.base.end;
    }
    base.get(at..).is_some_and(|rest| side.strip_prefix(&*made) == Some(rest))
}

/// Grows a region over all changes that meet it, or one that does. Returns how many of each side those are.
fn grow(left: &[Change], right: &[Change], region: &mut Range<usize>) -> (usize, usize) {
    let mut taken = (0, 0);
    loop {
        // Regions that only touch meet as well: which of two insertions at one place comes first, nobody knows.
        let next = if left.get(taken.0).is_some_and(|change| change.base.start <= region.end) {
            taken.0 += 1;
            &left[taken.0 - 1]
        } else if right.get(taken.1).is_some_and(|change| change.base.start <= region.end) {
            taken.1 += 1;
            &right[taken.1 - 1]
        } else {
            return taken;
        };
        region.end = region.end.max(next.base.end);
    }
}

/// Returns where a region of the text before lies in a side that made these changes in it.
fn place(region: &Range<usize>, changes: &[Change], ahead: &mut isize) -> Range<usize> {
    let start = moved(region.start, *ahead);
    for change in changes {
        *ahead += change.side.len().cast_signed() - change.base.len().cast_signed();
    }
    start..moved(region.end, *ahead)
}

fn moved(line: usize, by: isize) -> usize {
    line.checked_add_signed(by).expect("a line that both texts have lies in both")
}

/// Gives equal lines equal numbers, which are faster to compare.
#[derive(Default)]
struct Numbers<'a>(BTreeMap<&'a [u8], u32>);

impl<'a> Numbers<'a> {
    fn of(&mut self, lines: &[&'a [u8]]) -> Vec<u32> {
        let number = |line: &&'a [u8]| {
            let next = self.0.len() as u32;
            *self.0.entry(line).or_insert(next)
        };
        lines.iter().map(number).collect()
    }
}

fn lines(bytes: &[u8]) -> Result<Vec<&[u8]>, MergeError> {
    if bytes.len() > MERGE_LEN_MAX {
        return Err(MergeError::TooLong);
    }
    if bytes.contains(&0) || std::str::from_utf8(bytes).is_err() {
        return Err(MergeError::NotText);
    }
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.len() > MERGE_LINES_MAX { Err(MergeError::TooLong) } else { Ok(lines) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Merges both ways round.
    fn merged(base: &str, one: &str, other: &str) -> Result<String, usize> {
        let text = |result: Result<Vec<u8>, MergeError>| match result {
            Ok(bytes) => Ok(String::from_utf8(bytes).unwrap()),
            Err(MergeError::Overlap { line }) => Err(line),
            Err(error) => panic!("{error}"),
        };
        let there = text(merge(base.as_bytes(), one.as_bytes(), other.as_bytes()));
        let back = text(merge(base.as_bytes(), other.as_bytes(), one.as_bytes()));
        assert_eq!(there.is_ok(), back.is_ok(), "{base:?} {one:?} {other:?}");
        if there.is_ok() {
            assert_eq!(there, back, "whichever side comes first");
        }
        there
    }

    #[test]
    fn edits_that_lie_apart_are_all_made() {
        assert_eq!(merged("a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n").unwrap(), "A\nb\nC\n");
        assert_eq!(merged("a\nb\nc\n", "new\na\nb\nc\n", "a\nb\n").unwrap(), "new\na\nb\n");
        assert_eq!(merged("a\nb\nc\n", "a\nb\nc\n", "a\nx\nc\n").unwrap(), "a\nx\nc\n");
        assert_eq!(merged("", "", "x").unwrap(), "x");
    }

    #[test]
    fn changes_that_are_told_wrong_are_found_out() {
        let change = |base, side| Change { base, side };
        let (base, side) = ([0, 1, 2], [0, 7, 2, 8]);
        assert!(leads_to(&base, &side, &[change(1..2, 1..2), change(3..3, 3..4)]));
        assert!(leads_to(&base, &base, &[]));
        for wrong in [
            vec![],
            vec![change(1..2, 1..2)],
            vec![change(3..3, 3..4), change(1..2, 1..2)],
            vec![change(1..2, 1..2), change(2..2, 3..4)],
            vec![change(1..2, 1..2), change(3..4, 3..4)],
            vec![change(1..2, 1..9)],
        ] {
            assert!(!leads_to(&base, &side, &wrong), "{wrong:?}");
        }
    }

    #[test]
    fn edits_that_meet_are_left_to_a_person() {
        assert_eq!(merged("a\nb\nc\n", "a\nx\nc\n", "a\ny\nc\n"), Err(2));
        assert_eq!(merged("a\nb\nc\n", "a\nc\n", "a\ny\nc\n"), Err(2), "one deleted what the other changed");
        assert_eq!(merged("a\nb\nc\n", "A\nb\nc\n", "a\nB\nc\n"), Err(1), "lines that touch");
        assert_eq!(merged("a\n", "a\nx\n", "a\ny\n"), Err(2), "two insertions at one place");
        assert_eq!(merged("", "x", "y"), Err(1));
        assert_eq!(merged("a\nb\nc\nd\n", "new\na\nb\nc\nx\n", "a\nb\nc\ny\n"), Err(5), "counted in the first side");
    }

    #[test]
    fn the_same_change_on_both_sides_is_made_once() {
        assert_eq!(merged("a\nb\nc\n", "a\nx\nc\n", "a\nx\nc\n").unwrap(), "a\nx\nc\n");
        assert_eq!(merged("a\nb\nc\nd\n", "a\nx\nc\nd\n", "a\nx\nc\nD\n").unwrap(), "a\nx\nc\nD\n");
        assert_eq!(merged("a\n", "a\nx\n", "a\nx\n").unwrap(), "a\nx\n");
    }

    #[test]
    fn line_ends_are_kept_as_they_are() {
        assert_eq!(merged("a\r\nb\r\nc", "A\r\nb\r\nc", "a\r\nb\r\nC").unwrap(), "A\r\nb\r\nC");
        assert_eq!(
            merged("a\nb\nc", "A\nb\nc", "a\nb\nc\n").unwrap(),
            "A\nb\nc\n",
            "an end that was given to the last line"
        );
        assert_eq!(merged("a\nb\nc", "a\nb\nc\n", "a\nb\nc\nd"), Err(3), "who ended the last line changed it");
        assert_eq!(merged("a\nb\nc\n", "A\nb\nc\n", "a\nb\nc\r\n").unwrap(), "A\nb\nc\r\n");
    }

    #[test]
    fn only_texts_of_some_length_are_merged() {
        assert_eq!(merge(b"a\0", b"a", b"a"), Err(MergeError::NotText));
        assert_eq!(merge(b"a", b"\xff\xfe", b"a"), Err(MergeError::NotText));
        let long = vec![b'x'; MERGE_LEN_MAX + 1];
        assert_eq!(merge(b"a", b"a", &long), Err(MergeError::TooLong));
        let many = "\n".repeat(MERGE_LINES_MAX + 1);
        assert_eq!(merge(b"a", b"a", many.as_bytes()), Err(MergeError::TooLong));
        assert!(is_text("é\n".as_bytes()) && !is_text(b"\xe9\n") && !is_text(many.as_bytes()));
    }

    /// What becomes of one line, and of the place before it.
    #[derive(Clone, Debug)]
    enum Edit {
        None,
        Change(String),
        Delete,
        Insert(String),
    }

    fn any_edit(side: &'static str) -> impl Strategy<Value = Edit> {
        // Lines repeat, which is what makes it hard to say what was changed.
        let line = move |n: u8| format!("{side}{}\n", n % 4);
        prop_oneof![
            3 => Just(Edit::None),
            1 => any::<u8>().prop_map(move |n| Edit::Change(line(n))),
            1 => Just(Edit::Delete),
            1 => any::<u8>().prop_map(move |n| Edit::Insert(line(n))),
        ]
    }

    fn edited(base: &[String], edits: &[(usize, Edit)]) -> String {
        let mut text = String::new();
        for (at, line) in base.iter().enumerate() {
            match edits.iter().find(|(place, _)| *place == at).map(|(_, edit)| edit) {
                None | Some(Edit::None) => text += line,
                Some(Edit::Change(new)) => text += new,
                Some(Edit::Delete) => {}
                Some(Edit::Insert(new)) => text.extend([new.as_str(), line]),
            }
        }
        text
    }

    /// Lines of the text before (those below 8) and new ones, in any order, none twice.
    fn any_lines(new: u8) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0u8..12, 0..12).prop_map(move |mut lines| {
            let mut seen = [false; 12];
            lines.retain(|line| !std::mem::replace(&mut seen[usize::from(*line)], true));
            lines.into_iter().map(|line| if line < 8 { line } else { line + new }).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Of few different lines, so that there are many ways from one text to the other.
        #[test]
        fn where_one_side_changed_nothing_the_other_is_what_comes_out(base in "[abc\n]{0,24}", side in "[abc\n]{0,24}") {
            prop_assert_eq!(merged(&base, &base, &side), Ok(side.clone()));
            prop_assert_eq!(merged(&base, &side, &side), Ok(side));
        }

        /// The lines of the text before differ, and two edits have two unchanged lines at least between them.
        #[test]
        fn a_merge_of_edits_that_lie_apart_equals_both(
            edits in proptest::collection::vec((any::<bool>(), any_edit("one"), any_edit("other")), 1..12)
        ) {
            let base: Vec<String> = (0..edits.len() * 4).map(|n| format!("line {n}\n")).collect();
            let (mut one, mut other, mut both) = (vec![], vec![], vec![]);
            for (n, (is_first, mine, theirs)) in edits.into_iter().enumerate() {
                let at = n * 4 + 1;
                let (side, edit) = if is_first { (&mut one, mine) } else { (&mut other, theirs) };
                side.push((at, edit.clone()));
                both.push((at, edit));
            }
            let texts = [edited(&base, &one), edited(&base, &other), edited(&base, &both)];
            prop_assert_eq!(merged(&base.concat(), &texts[0], &texts[1]), Ok(texts[2].clone()));
        }

        /// Whatever is put in, taken out and put elsewhere, of lines that are told apart: what is in neither side
        /// was taken out by one of them, and what one of them put in is there.
        #[test]
        fn no_line_is_lost_silently(one in any_lines(0), other in any_lines(10)) {
            let base: Vec<u8> = (0..8).collect();
            let text = |lines: &[u8]| lines.iter().map(|n| format!("{n}\n")).collect::<String>();
            if let Ok(result) = merged(&text(&base), &text(&one), &text(&other)) {
                for line in 0..30 {
                    let is_in = |lines: &[u8]| lines.contains(&line);
                    let must = if is_in(&base) { is_in(&one) && is_in(&other) } else { is_in(&one) || is_in(&other) };
                    let has = result.lines().any(|found| found == line.to_string());
                    prop_assert!(has || !must, "{} {:?} {:?} {:?}", line, one, other, result);
                    prop_assert!(!has || is_in(&one) || is_in(&other), "{} {:?} {:?} {:?}", line, one, other, result);
                }
            }
            // Who changed nothing leaves the other's text as it is.
            prop_assert_eq!(merged(&text(&base), &text(&base), &text(&other)), Ok(text(&other)));
            prop_assert_eq!(merged(&text(&base), &text(&other), &text(&other)), Ok(text(&other)));
        }

        #[test]
        fn an_end_that_is_missing_stays_in_its_place(
            base in "([ab]\n){0,4}[ab]?", one in "([ab]\n){0,4}[ab]?", other in "([ab]\n){0,4}[ab]?"
        ) {
            if let Ok(result) = merged(&base, &one, &other) {
                // Two lines never run into one.
                prop_assert!(result.split('\n').all(|line| line.len() <= 1), "{:?}", result);
            }
        }
    }
}
