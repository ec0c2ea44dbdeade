//! Words of a command line, for advice that a person can paste into a shell.

/// Returns a word as a POSIX shell reads it: as one word, and no character of it as anything but itself (POSIX.1-2017,
/// XCU 2.2.2). What must not reach a terminal is not taken out: whoever shows the word does that.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        for word in
            ["Photos-2026", "/srv/été", "", " ", "it's; rm -rf ~", "~root", "$(id)", "`id`", "a\\b", "a\nb", "*", "!!"]
        {
            let script = format!("printf %s {}", quoted(word));
            let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), word, "{script}");
        }
        assert_eq!(quoted("laptop:reader"), "laptop:reader", "what needs no quotes has none");
    }
}
