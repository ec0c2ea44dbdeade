//! When a folder's brake holds, as people write it: `on`, `off`, `200 files, 50%`.

use crate::config::error::Advice;
use crate::model::brake::Grade;
use crate::model::brake::Thresholds;

/// A text does not say when the brake holds.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no setting of the brake")]
pub struct BrakeError(String);

impl Advice for BrakeError {
    fn advice(&self) -> &'static str {
        "write \"on\", \"off\", or how much may go unasked, like \"200 files, 50%\""
    }
}

/// Parses the setting; `None` is a brake that is off.
///
/// # Errors
/// The text is none of the three forms.
pub fn parse(text: &str) -> Result<Option<Thresholds>, BrakeError> {
    match text.trim() {
        "on" => Ok(Some(Thresholds::default())),
        "off" => Ok(None),
        own => parse_grade(own).map(|grade| Some(Thresholds::new(grade))).ok_or_else(|| BrakeError(text.to_owned())),
    }
}

fn parse_grade(text: &str) -> Option<Grade> {
    let (files, percent) = text.split_once(',')?;
    let files = files.trim();
    let files = files.strip_suffix("files").or_else(|| files.strip_suffix("file")).unwrap_or(files).trim_end();
    let percent: u8 = percent.trim().strip_suffix('%')?.trim_end().parse().ok()?;
    Some(Grade { files: files.parse().ok()?, percent }).filter(|grade| grade.percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        assert_eq!(parse("on"), Ok(Some(Thresholds::default())));
        assert_eq!(parse(" off "), Ok(None));
        let own = Ok(Some(Thresholds::new(Grade { files: 200, percent: 50 })));
        for text in ["200 files, 50%", "200,50%", "200 files,50 %", " 200 , 50%"] {
            assert_eq!(parse(text), own, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in ["", "true", "200", "50%", "200, 50", "200 files, 101%", "-1, 5%", "many, 5%", "1, 2%, 3%"] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
            assert!(error.advice().contains("200 files, 50%"), "{text}: {}", error.advice());
        }
    }
}
