//! Points in time as people say them: `yesterday 18:00`, `2 hours ago`, `monday`, `2026-05-31 18:00`.
//!
//! [`parse`] reads what is past: a time still to come is refused, for nothing was as it will be. [`parse_ahead`] reads what
//! is still to come. The clock and its zone are arguments.

use jiff::Span;
use jiff::Timestamp;
use jiff::ToSpan;
use jiff::Zoned;
use jiff::civil::Date;
use jiff::civil::DateTime;
use jiff::civil::Time as Clock;
use jiff::civil::Weekday;

/// What to write, where that was not understood.
const FORMS: &str = "write it like `2026-05-31 18:00`, `yesterday 18:00`, `monday`, `18:00` or `2 hours ago`";

/// Reads a point in time, as it is meant at `now`.
pub fn parse(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let text = text.trim();
    let time = exact(text, now).or_else(|| spoken(&text.to_lowercase(), now)).ok_or(FORMS)?;
    if time > now.timestamp() {
        return Err("that is still to come".to_owned());
    }
    Ok(time)
}

/// What to write, where a time to come was not understood.
const FORMS_AHEAD: &str = "write it like `18:00`, `tomorrow 8:00`, `monday` or `2026-05-31 18:00`";

/// Reads a point in time that is still to come, as it is meant at `now`.
pub fn parse_ahead(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let text = text.trim();
    let time = exact(text, now).or_else(|| next(&text.to_lowercase(), now)).ok_or(FORMS_AHEAD)?;
    if time <= now.timestamp() {
        return Err("that is past already".to_owned());
    }
    Ok(time)
}

/// Reads how long something lasts, and returns when it ends.
pub fn parse_length(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let span = text.trim().parse::<Span>().ok().filter(|span| span.is_positive());
    let end = span.and_then(|span| now.checked_add(span).ok());
    end.map(|end| end.timestamp()).ok_or_else(|| "write it like `2h`, `90 minutes`, `1d 12h` or `3 days`".to_owned())
}

/// The next time of a clock, of a day, or of both.
fn next(text: &str, now: &Zoned) -> Option<Timestamp> {
    let (day, clock) = match text.split_once(' ') {
        Some((day, clock)) => (day, clock_time(clock.trim())?),
        None => match clock_time(text) {
            Some(clock) => {
                let today = at(now, now.date(), clock)?;
                let is_past = today <= now.timestamp();
                return if is_past { at(now, now.date().tomorrow().ok()?, clock) } else { Some(today) };
            }
            None => (text, Clock::midnight()),
        },
    };
    let date = match day {
        "today" => now.date(),
        "tomorrow" => now.date().tomorrow().ok()?,
        name => {
            // The next of that name, today included if the clock has not passed yet.
            let ahead = i64::from(now.weekday().until(weekday(name)?));
            let date = now.date().checked_add(ahead.days()).ok()?;
            match at(now, date, clock)? {
                time if time <= now.timestamp() => date.checked_add(7.days()).ok()?,
                _ => date,
            }
        }
    };
    at(now, date, clock)
}

/// Reads a timestamp, or a date and time on the clock of this machine.
fn exact(text: &str, now: &Zoned) -> Option<Timestamp> {
    let local = |time: DateTime| time.to_zoned(now.time_zone().clone()).ok().map(|time| time.timestamp());
    let stamp = text.parse::<Timestamp>().ok();
    stamp.or_else(|| local(text.parse::<DateTime>().ok()?)).or_else(|| local(text.parse::<Date>().ok()?.into()))
}

fn spoken(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Some(length) = text.strip_suffix(" ago") {
        let (count, unit) = length.trim().split_once(' ')?;
        let count: i64 = if matches!(count, "a" | "an" | "one") { 1 } else { count.parse().ok()? };
        return now.checked_sub(span(count, unit.trim())?).ok().map(|time| time.timestamp());
    }
    let (day, clock) = match text.split_once(' ') {
        Some((day, clock)) => (day, Some(clock_time(clock.trim())?)),
        // A clock alone is that of today, or where that is still to come of yesterday.
        None if text.starts_with(|c: char| c.is_ascii_digit()) => {
            let clock = clock_time(text)?;
            let today = at(now, now.date(), clock)?;
            return if today <= now.timestamp() { Some(today) } else { at(now, now.date().yesterday().ok()?, clock) };
        }
        None => (text, None),
    };
    let date = match day {
        "today" => now.date(),
        "yesterday" => now.date().yesterday().ok()?,
        name => {
            // The last of that name, today included if the clock has passed.
            let weekday = weekday(name.strip_prefix("last-").unwrap_or(name))?;
            let back = i64::from(now.weekday().since(weekday));
            let date = now.date().checked_sub(back.days()).ok()?;
            match at(now, date, clock.unwrap_or_default())? {
                time if time > now.timestamp() => date.checked_sub(7.days()).ok()?,
                _ => date,
            }
        }
    };
    at(now, date, clock.unwrap_or_default())
}

fn at(now: &Zoned, date: Date, clock: Clock) -> Option<Timestamp> {
    date.to_datetime(clock).to_zoned(now.time_zone().clone()).ok().map(|time| time.timestamp())
}

fn clock_time(text: &str) -> Option<Clock> {
    match text {
        "noon" => Some(Clock::constant(12, 0, 0, 0)),
        "midnight" => Some(Clock::midnight()),
        // `9:00` is nine o'clock, too.
        _ if text.find(':') == Some(1) => format!("0{text}").parse().ok(),
        _ => text.parse().ok(),
    }
}

fn span(count: i64, unit: &str) -> Option<Span> {
    let span = Span::new();
    match unit.trim_end_matches('s') {
        "second" | "sec" => span.try_seconds(count),
        "minute" | "min" => span.try_minutes(count),
        "hour" => span.try_hours(count),
        "day" => span.try_days(count),
        "week" => span.try_weeks(count),
        "month" => span.try_months(count),
        "year" => span.try_years(count),
        _ => return None,
    }
    .ok()
    .filter(|_| count >= 0)
}

fn weekday(name: &str) -> Option<Weekday> {
    let days = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let is_meant = |full: &str| name == full || (name.len() >= 3 && full.starts_with(name));
    days.into_iter().find(|(full, _)| is_meant(full)).map(|(_, day)| day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        // A Tuesday, two days after the clocks went forward there.
        "2026-03-31T15:30:00+02:00[Europe/Berlin]".parse().unwrap()
    }

    fn check(text: &str, expected: &str) {
        let zoned = parse(text, &now()).unwrap().to_zoned(now().time_zone().clone());
        assert_eq!(zoned.datetime().to_string(), expected, "{text}");
    }

    #[test]
    fn times_are_understood_as_people_say_them() {
        check("2026-03-01T18:00:00Z", "2026-03-01T19:00:00");
        check("2026-03-01T18:00:00.5+01:00", "2026-03-01T18:00:00.5");
        check("2026-03-01 18:00", "2026-03-01T18:00:00");
        check("2026-03-01 18:00:07.124", "2026-03-01T18:00:07.124");
        check("2026-03-01", "2026-03-01T00:00:00");
        check("18:00", "2026-03-30T18:00:00");
        check("15:00", "2026-03-31T15:00:00");
        check("today", "2026-03-31T00:00:00");
        check("today 9:00", "2026-03-31T09:00:00");
        check("yesterday 18:00", "2026-03-30T18:00:00");
        check("Yesterday Noon", "2026-03-30T12:00:00");
        check("monday", "2026-03-30T00:00:00");
        check("mon 09:15", "2026-03-30T09:15:00");
        check("tuesday 15:00", "2026-03-31T15:00:00");
        check("tuesday 16:00", "2026-03-24T16:00:00");
        check("wednesday", "2026-03-25T00:00:00");
        check("2 hours ago", "2026-03-31T13:30:00");
        check("an hour ago", "2026-03-31T14:30:00");
        check("90 minutes ago", "2026-03-31T14:00:00");
        // A day is a day on the clock, also where one had 23 hours.
        check("3 days ago", "2026-03-28T15:30:00");
        check("1 week ago", "2026-03-24T15:30:00");
        check("a month ago", "2026-02-28T15:30:00");
        check("0 days ago", "2026-03-31T15:30:00");
    }

    #[test]
    fn times_to_come_are_read_as_people_say_them() {
        let ahead = |text: &str| {
            let local = parse_ahead(text, &now()).unwrap_or_else(|error| panic!("{text}: {error}"));
            local.to_zoned(now().time_zone().clone()).datetime().to_string()
        };
        for (text, time) in [
            ("2026-04-01 18:00", "2026-04-01T18:00:00"),
            ("2026-03-31T16:00:00Z", "2026-03-31T18:00:00"),
            ("18:00", "2026-03-31T18:00:00"),
            ("9:00", "2026-04-01T09:00:00"),
            ("midnight", "2026-04-01T00:00:00"),
            ("today 23:00", "2026-03-31T23:00:00"),
            ("Tomorrow 8:00", "2026-04-01T08:00:00"),
            ("tomorrow", "2026-04-01T00:00:00"),
            ("monday", "2026-04-06T00:00:00"),
            ("tuesday 16:00", "2026-03-31T16:00:00"),
            ("tue 15:00", "2026-04-07T15:00:00"),
        ] {
            assert_eq!(ahead(text), time, "{text}");
        }
        for text in ["", "soon", "25:00", "yesterday", "tomorrow at 6", "2 hours ago"] {
            assert_eq!(parse_ahead(text, &now()), Err(FORMS_AHEAD.to_owned()), "{text}");
        }
        for text in ["2026-03-31 15:00", "today 9:00"] {
            assert_eq!(parse_ahead(text, &now()), Err("that is past already".to_owned()), "{text}");
        }
    }

    #[test]
    fn lengths_are_read_as_people_write_them() {
        let ends = |text: &str| {
            let end = parse_length(text, &now()).unwrap_or_else(|error| panic!("{text}: {error}"));
            end.to_zoned(now().time_zone().clone()).datetime().to_string()
        };
        for (text, time) in [
            ("2h", "2026-03-31T17:30:00"),
            (" 90 minutes", "2026-03-31T17:00:00"),
            ("1d 12h", "2026-04-02T03:30:00"),
            ("3 days", "2026-04-03T15:30:00"),
            ("30s", "2026-03-31T15:30:30"),
        ] {
            assert_eq!(ends(text), time, "{text}");
        }
        for text in ["", "2", "0h", "-2h", "2 hours ago", "long", "99999999 years"] {
            assert!(parse_length(text, &now()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_or_still_to_come_is_refused() {
        for text in [
            "",
            "soon",
            "25:00",
            "yesterday 25:00",
            "2026-13-01 00:00",
            "ago",
            "x hours ago",
            "-1 days ago",
            "2 fortnights ago",
            "mo",
            "9999999999999 years ago",
            "3 o'clock",
            "yesterday at 6",
            "2026-02-30",
        ] {
            assert_eq!(parse(text, &now()), Err(FORMS.to_owned()), "{text}");
        }
        for text in ["2026-04-01", "today 16:00", "2027-01-01T00:00:00Z"] {
            assert_eq!(parse(text, &now()), Err("that is still to come".to_owned()), "{text}");
        }
    }
}
