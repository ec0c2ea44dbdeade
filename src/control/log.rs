//! The newest lines of the log, kept in memory for `kinfold log`.

use std::collections::VecDeque;
use std::fmt;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tracing::Event;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::control::types::LogLine;
use crate::control::types::Time;
use crate::model::limits::LOG_LINE_LEN_MAX;
use crate::model::limits::LOG_LINES_MAX;

/// The newest lines of the log. Clones share them.
///
/// Bounded by [`LOG_LINES_MAX`] and [`LOG_LINE_LEN_MAX`]. A line takes its folder and path from the
/// fields of that name; other fields are appended to the message.
#[derive(Clone, Debug, Default)]
pub struct LogRing(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    last_seq: u64,
    kept: VecDeque<LogLine>,
}

impl LogRing {
    /// Returns at most `limit` lines: the first after line `after`, or the newest of all for `None`.
    ///
    /// Whoever asks for what comes after a line that was not written yet has read a daemon before this one,
    /// and gets all.
    pub fn lines(&self, after: Option<u64>, limit: usize) -> Vec<LogLine> {
        let lines = self.lock();
        let after = after.map(|seq| if seq > lines.last_seq { 0 } else { seq });
        let skipped = match after {
            Some(seq) => lines.kept.partition_point(|line| line.seq <= seq),
            None => lines.kept.len().saturating_sub(limit),
        };
        lines.kept.iter().skip(skipped).take(limit).cloned().collect()
    }

    fn push(&self, level: &str, text: Text) {
        let mut lines = self.lock();
        lines.last_seq += 1;
        if lines.kept.len() == LOG_LINES_MAX {
            lines.kept.pop_front();
        }
        let seq = lines.last_seq;
        lines.kept.push_back(LogLine {
            seq,
            time: Time(jiff::Timestamp::now()),
            level: level.to_owned(),
            message: text.message + &text.fields,
            folder: text.folder,
            path: text.path,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Whole lines are pushed, so that a panic elsewhere leaves nothing half done here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for LogRing {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.push(event.metadata().level().as_str(), text);
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    folder: Option<String>,
    path: Option<String>,
}

impl Text {
    fn take(&mut self, field: &Field, mut text: String) {
        text.truncate(text.floor_char_boundary(LOG_LINE_LEN_MAX));
        match field.name() {
            "message" => self.message = text,
            "folder" => self.folder = Some(text),
            "path" => self.path = Some(text),
            name if self.fields.len() < LOG_LINE_LEN_MAX => {
                write!(self.fields, " {name}={text}").expect("a string takes all that is written");
            }
            _ => {}
        }
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    fn logged(write: impl FnOnce()) -> LogRing {
        let ring = LogRing::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(ring.clone()), write);
        ring
    }

    #[test]
    fn a_line_has_its_folder_and_path_apart() {
        let ring = logged(|| tracing::warn!(folder = "data", path = %"a/b", size = 7, "cannot read"));
        let [line] = &ring.lines(None, 10)[..] else { panic!("one line") };
        assert_eq!((line.seq, line.level.as_str(), line.message.as_str()), (1, "WARN", "cannot read size=7"));
        assert_eq!((line.folder.as_deref(), line.path.as_deref()), (Some("data"), Some("a/b")));
    }

    #[test]
    fn only_the_newest_lines_are_kept_and_none_is_skipped_when_followed() {
        let ring = logged(|| (0..LOG_LINES_MAX + 2).for_each(|n| tracing::info!("{n}")));
        let seqs = |after, limit| ring.lines(after, limit).iter().map(|line| line.seq).collect::<Vec<_>>();
        let last = LOG_LINES_MAX as u64 + 2;
        assert_eq!(seqs(None, 2), [last - 1, last]);
        assert_eq!(seqs(Some(0), 2), [3, 4]);
        assert_eq!(seqs(Some(4), 2), [5, 6]);
        assert!(seqs(Some(last), 2).is_empty());
    }

    #[test]
    fn a_long_line_is_cut() {
        let ring = logged(|| tracing::info!("{}", "é".repeat(LOG_LINE_LEN_MAX)));
        assert_eq!(ring.lines(None, 1)[0].message.len(), LOG_LINE_LEN_MAX);
    }
}
