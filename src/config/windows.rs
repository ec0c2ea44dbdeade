//! When a folder is active, as people write it: `Mon-Fri 18:00-08:00`, `Sat-Sun`, `22:00-06:00`.
//!
//! By the clock on the wall: a night in which the clock is set back is an hour longer. A window that ends before it
//! begins ends on the next day, and belongs to the day on which it begins. The clock and its zone are arguments.

use std::fmt;

use jiff::ToSpan;
use jiff::Zoned;
use jiff::civil::Date;
use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::config::error::Advice;

/// Most windows of a folder.
pub const WINDOWS_MAX: usize = 32;
/// Days that are looked at ahead: after a week all comes again.
const DAYS_AHEAD: i32 = 8;

/// A text is no window.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no time of the week")]
pub struct WindowError(String);

impl Advice for WindowError {
    fn advice(&self) -> &'static str {
        "write it like \"Mon-Fri 18:00-08:00\", \"Sat-Sun\" or \"22:00-06:00\""
    }
}

/// A part of certain days.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Window {
    /// On which days of the week it begins, from Monday on.
    days: [bool; 7],
    /// From when to when; `None`: all day.
    clock: Option<(Time, Time)>,
    text: String,
}

/// The times of the week at which something is active.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Windows(Vec<Window>);

impl Windows {
    /// Adds the window that a text says.
    ///
    /// # Errors
    /// It says none.
    pub fn add(&mut self, text: &str) -> Result<(), WindowError> {
        let window = parse(text.trim()).ok_or_else(|| WindowError(text.to_owned()))?;
        self.0.push(window);
        Ok(())
    }

    /// Returns whether there is any; where there is none, it is always time.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `now` lies in one of them, or there is none.
    pub fn is_open(&self, now: &Zoned) -> bool {
        self.is_empty() || self.spans(now).iter().any(|(begin, end)| begin <= now && now < end)
    }

    /// Returns when they open next; `None` where they are open, or that time is beyond the calendar.
    pub fn opens(&self, now: &Zoned) -> Option<Zoned> {
        if self.is_open(now) {
            return None;
        }
        self.spans(now).into_iter().map(|(begin, _)| begin).filter(|begin| begin > now).min()
    }

    /// Lists when they open and close around `now`.
    fn spans(&self, now: &Zoned) -> Vec<(Zoned, Zoned)> {
        let zone = now.time_zone();
        let dates = (-1..=DAYS_AHEAD).filter_map(|days| now.date().checked_add(days.days()).ok());
        let on = |date: Date| self.0.iter().filter_map(move |window| window.on(date, zone));
        // Where the clock jumps over the beginning, it is later than the end may be.
        dates.flat_map(on).filter(|(begin, end)| begin < end).collect()
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|window| window.text.as_str()).collect();
        f.write_str(&texts.join(", "))
    }
}

impl Window {
    /// Returns when it begins on a date, and when that ends.
    fn on(&self, date: Date, zone: &TimeZone) -> Option<(Zoned, Zoned)> {
        let day = date.weekday().to_monday_zero_offset();
        if !self.days[usize::try_from(day).ok()?] {
            return None;
        }
        let (begin, end) = self.clock.unwrap_or((Time::midnight(), Time::midnight()));
        let last = if end <= begin { date.tomorrow().ok()? } else { date };
        let at = |date: Date, time: Time| date.to_datetime(time).to_zoned(zone.clone()).ok();
        Some((at(date, begin)?, at(last, end)?))
    }
}

fn parse(text: &str) -> Option<Window> {
    let (days, clock) = match text.split_once(char::is_whitespace) {
        Some((days, clock)) => (parse_days(days)?, Some(parse_clock(clock)?)),
        None if text.starts_with(|c: char| c.is_ascii_digit()) => ([true; 7], Some(parse_clock(text)?)),
        None => (parse_days(text)?, None),
    };
    Some(Window { days, clock, text: text.to_owned() })
}

/// `Mon`, or `Fri-Mon`, which is four days.
fn parse_days(text: &str) -> Option<[bool; 7]> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_day(first)?, parse_day(last)?);
    let mut days = [false; 7];
    let mut day = first;
    loop {
        days[day] = true;
        if day == last {
            return Some(days);
        }
        day = (day + 1) % 7;
    }
}

/// A day by its name or the first three letters of it, counted from Monday.
fn parse_day(text: &str) -> Option<usize> {
    let full = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let text = text.to_ascii_lowercase();
    full.iter().position(|name| *name == text || (text.len() == 3 && name.starts_with(&text)))
}

fn parse_clock(text: &str) -> Option<(Time, Time)> {
    let (begin, end) = text.trim().split_once('-')?;
    let begin = parse_time(begin.trim())?;
    if end.trim() == "24:00" {
        return Some((begin, Time::midnight()));
    }
    let end = parse_time(end.trim())?;
    // Nobody could tell whether nothing is meant or all of it.
    (begin != end).then_some((begin, end))
}

fn parse_time(text: &str) -> Option<Time> {
    let (hours, minutes) = text.split_once(':')?;
    let is_number = |text: &str, len| text.len() <= len && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hours, 2) || !is_number(minutes, 2) || minutes.len() != 2 {
        return None;
    }
    Time::new(hours.parse().ok()?, minutes.parse().ok()?, 0, 0).ok()
}

/// Writes a time that is still to come as shortly as can be understood at `now`: `18:00`, `Mon 18:00`, or with its date.
pub fn shortly(time: &Zoned, now: &Zoned) -> String {
    let week = now.date().checked_add(6.days()).unwrap_or(Date::MAX);
    let form = match time.date() {
        date if date == now.date() => "%H:%M",
        date if date > now.date() && date <= week => "%a %H:%M",
        _ => "%Y-%m-%d %H:%M",
    };
    time.strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(texts: &[&str]) -> Windows {
        let mut windows = Windows::default();
        texts.iter().for_each(|text| windows.add(text).unwrap());
        windows
    }

    /// 2026-06-01 is a Monday.
    fn at(text: &str) -> Zoned {
        format!("{text}[Europe/Berlin]").parse().unwrap()
    }

    /// Says when a folder is active: each row a time, and when it opens where it is not.
    #[track_caller]
    fn check(texts: &[&str], rows: &[(&str, Option<&str>)]) {
        let windows = windows(texts);
        for (now, opens) in rows {
            let now = at(now);
            assert_eq!(windows.is_open(&now), opens.is_none(), "{texts:?} at {now}");
            assert_eq!(windows.opens(&now), opens.map(at), "{texts:?} at {now}");
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        check(
            &["Mon-Fri 18:00-08:00", "Sat-Sun"],
            &[
                // Nothing began on Sunday evening that would last until Monday morning.
                ("2026-06-01T00:00", Some("2026-06-01T18:00")),
                ("2026-06-01T17:59:59", Some("2026-06-01T18:00")),
                ("2026-06-01T18:00", None),
                ("2026-06-02T00:00", None),
                ("2026-06-02T07:59:59", None),
                ("2026-06-02T08:00", Some("2026-06-02T18:00")),
                // What began on Friday goes on into Saturday, which is whole.
                ("2026-06-05T17:00", Some("2026-06-05T18:00")),
                ("2026-06-06T05:00", None),
                ("2026-06-06T12:00", None),
                ("2026-06-07T23:59:59", None),
            ],
        );
    }

    #[test]
    fn days_and_times_stand_alone_too_and_a_week_ends_where_it_begins() {
        check(&["22:00-06:00"], &[("2026-06-03T06:00", Some("2026-06-03T22:00")), ("2026-06-03T05:59", None)]);
        check(
            &["sat-MON 9:00-24:00"],
            &[
                ("2026-06-01T23:59", None),
                ("2026-06-02T00:00", Some("2026-06-06T09:00")),
                ("2026-06-07T00:00", Some("2026-06-07T09:00")),
            ],
        );
        check(
            &["wednesday"],
            &[
                ("2026-06-03T00:00", None),
                ("2026-06-03T23:59:59", None),
                ("2026-06-04T00:00", Some("2026-06-10T00:00")),
            ],
        );
    }

    #[test]
    fn no_window_is_always_time_and_so_are_whole_days() {
        check(&[], &[("2026-06-01T00:00", None)]);
        check(&["Mon-Sun"], &[("2026-06-01T00:00", None), ("2026-06-07T23:59:59", None)]);
        check(&["00:00-24:00"], &[("2026-06-01T00:00", None), ("2026-06-01T23:59:59", None)]);
    }

    #[test]
    fn a_window_is_as_long_as_the_clock_on_the_wall_says() {
        let hours = |text: &str, date: &str| {
            let windows = windows(&[text]);
            let mut now = at(&format!("{date}T12:00"));
            let mut open = 0;
            for _ in 0..24 * 4 {
                open += u32::from(windows.is_open(&now));
                now = now.checked_add(15.minutes()).unwrap();
            }
            f64::from(open) / 4.0
        };
        assert_eq!(hours("22:00-06:00", "2026-06-01"), 8.0);
        // The clock went from 02:00 to 03:00, and in autumn from 03:00 back to 02:00.
        assert_eq!(hours("22:00-06:00", "2026-03-28"), 7.0);
        assert_eq!(hours("22:00-06:00", "2026-10-24"), 9.0);
        // There was no time from half past two to three, and in autumn it came twice.
        assert_eq!(hours("02:30-03:00", "2026-03-28"), 0.0);
        assert_eq!(hours("02:30-03:00", "2026-10-24"), 1.5);
        // It begins when the clock has jumped over its beginning.
        check(&["02:30-04:00"], &[("2026-03-29T01:59", Some("2026-03-29T03:30"))]);
    }

    #[test]
    fn what_is_no_time_of_the_week_is_refused() {
        for text in [
            "",
            "always",
            "Mon-",
            "-Fri",
            "Mo",
            "Mond",
            "Mon Tue",
            "Mon-Fri 18-8",
            "18:00",
            "8:0-9:00",
            "25:00-26:00",
            "08:60-09:00",
            "08:00-08:00",
            "24:00-08:00",
            "Mon 08:00-",
            "Mon, Tue",
            "+8:00-09:00",
        ] {
            assert_eq!(Windows::default().add(text), Err(WindowError(text.to_owned())));
        }
    }

    #[test]
    fn a_time_is_written_as_shortly_as_can_be_understood() {
        let now = at("2026-06-01T12:00");
        for (time, shown) in [
            ("2026-06-01T18:00", "18:00"),
            ("2026-06-02T08:00", "Tue 08:00"),
            ("2026-06-07T08:00", "Sun 08:00"),
            ("2026-06-08T08:00", "2026-06-08 08:00"),
            ("2026-05-31T08:00", "2026-05-31 08:00"),
        ] {
            assert_eq!(shortly(&at(time), &now), shown);
        }
    }
}
