//! `kinfold inbox`: all that waits for a person, in one list.

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::control::types::InboxItem;

/// Arguments of `kinfold inbox`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command. Ends with [`Exit::NeedsPerson`] where something waits.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let items = context.client()?.inbox()?;
    if args.json {
        output::say_json(&items)?;
    } else {
        items.iter().flat_map(text).try_for_each(output::say)?;
    }
    Ok(if items.is_empty() { Exit::Done } else { Exit::NeedsPerson })
}

fn text(item: &InboxItem) -> Vec<String> {
    let place = match (&item.folder, &item.path) {
        (_, Some(path)) => format!("{path}: "),
        (Some(folder), None) => format!("{}: ", output::escaped(folder)),
        (None, None) => String::new(),
    };
    let mut lines = vec![format!("{place}{}", output::printable(&item.what))];
    if !item.detail.is_empty() {
        lines.push(format!("  {}", output::printable(&item.detail)));
    }
    if !item.advice.is_empty() {
        lines.push(format!("  what to do: {}", output::printable(&item.advice)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use crate::control::types::RawPath;

    #[test]
    fn an_item_says_where_what_and_what_to_do() {
        let item = InboxItem {
            folder: Some("data".to_owned()),
            path: Some(RawPath::from(Path::new("/d/a\nb"))),
            what: "cannot be read".to_owned(),
            advice: "check its permissions".to_owned(),
            detail: "permission denied".to_owned(),
            held: None,
        };
        let lines = ["/d/a\\nb: cannot be read", "  permission denied", "  what to do: check its permissions"];
        assert_eq!(text(&item), lines);
        let whole = InboxItem { path: None, detail: String::new(), advice: String::new(), ..item };
        assert_eq!(text(&whole), ["data: cannot be read"]);
    }
}
