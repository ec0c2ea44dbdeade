//! kinfold-api(7): what programs may ask of a running daemon, out of the very types that it reads and writes.

use crate::cli::man::mdoc::DATE;
use crate::cli::man::mdoc::Page;

/// The name of the page, with its section.
pub const NAME: &str = "kinfold-api.7";

const TYPES: &str = include_str!("../../control/types.rs");

/// A request: its method and path, what it takes and gives as JSON, and what it does.
struct Request(&'static str, &'static str, &'static str, &'static str);

const NOTHING: &str = "";

/// All requests, in the order of the page.
const REQUESTS: &[Request] = &[
    Request("GET /v1/status", NOTHING, "Status", "Tells how the daemon does."),
    Request("GET /v1/inbox", NOTHING, "list of InboxItem", "Tells what waits for a person."),
    Request("GET /v1/offers", NOTHING, "list of Offer", "Tells which folders other devices would share."),
    Request("GET /v1/folders/sync", "?folder=NAME", "SyncState", "Tells whether a folder, or all, are in sync."),
    Request(
        "GET /v1/folders/verify",
        "?folder=NAME",
        "list of Verified",
        "Tells how far a check of all files has come.",
    ),
    Request("GET /v1/conflicts", "?folder=NAME", "list of Conflict", "Lists the conflicts of a folder, or of all."),
    Request(
        "GET /v1/log",
        "?after=SEQ&limit=N&wait_ms=N",
        "list of LogLine",
        "Returns lines of the log. All three may be left out.",
    ),
    Request(
        "GET /v1/events",
        "?after=SEQ&limit=N&wait_ms=N",
        "list of Event",
        "Returns what happened. All three may be left out.",
    ),
    Request(
        "POST /v1/folders/scan",
        "ScanFolder",
        "null",
        "Compares a folder with the disk; answers when that is done.",
    ),
    Request(
        "POST /v1/folders/release",
        "ReleaseFolder",
        "Released",
        "Lets go what is held in a folder, or rejects it.",
    ),
    Request(
        "POST /v1/folders/verify",
        "Verify",
        "null",
        "Has all files compared with their records; answers when that is begun.",
    ),
    Request("POST /v1/conflicts/keep", "KeepConflict", "null", "Settles a conflict."),
    Request(
        "POST /v1/conflicts/merge",
        "MergeConflict",
        "MergedConflict",
        "Merges both sides of a conflict where they are texts and the edits do not overlap.",
    ),
    Request("POST /v1/history", "AskHistory", "list of HistoryEntry", "Lists the kept states of a path, newest first."),
    Request("POST /v1/restore", "Restore", "Restored", "Brings back the past of a path."),
    Request("POST /v1/reload", NOTHING, "null", "Reads the configuration anew; answers when it is in force."),
    Request("POST /v1/shutdown", NOTHING, "null", "Ends the daemon."),
];

const DESCRIPTION: &[&str] = &[
    "The daemon answers HTTP/1.1 with JSON on a Unix socket, to programs of the same user and of root alone. The command \
     line has no other way to ask it; with `--json` it prints what is described here.",
    "The version stands in the path. Within a version fields and requests are added, never taken away or changed. A \
     program has to ignore fields that it does not know.",
    "A body is sent with the content type application/json. After a `?` comes what may be given in the query, escaped as \
     in any URL. With `wait_ms` an answer waits for so long, at most a minute, until there is something.",
];

/// Returns the page.
pub fn page() -> String {
    let mut page = Page::default();
    page.request(format!(".Dd {DATE}"));
    page.request(".Dt KINFOLD-API 7\n.Os\n.Sh NAME\n.Nm kinfold-api\n.Nd what programs may ask of a running kinfold");
    page.request(".Sh DESCRIPTION");
    for (at, paragraph) in DESCRIPTION.iter().enumerate() {
        if at > 0 {
            page.request(".Pp");
        }
        page.prose(paragraph);
    }
    page.request(".Sh REQUESTS\n.Bl -tag -width Ds");
    for Request(line, takes, gives, about) in REQUESTS {
        page.request(format!(".It Ic {line}"));
        page.prose(about);
        if !takes.is_empty() {
            page.prose(&format!("Takes `{takes}`."));
        }
        page.prose(&format!("Answers `{gives}`."));
    }
    page.request(".El\n.Sh REFUSALS");
    page.prose(
        "An answer with another status than 200 holds an `ApiError`. The status is 400 where the request makes no sense, \
         404 where what it names is not here, 409 where it cannot be done now, and 500 where the daemon could not do it.",
    );
    page.request(".Sh TYPES");
    page.prose(
        "A time is RFC 3339 in UTC, to the nanosecond. A path is a text, or where it is not UTF-8 an object with `base64`, \
         its bytes, and `text`, which is for people alone. What is optional is left out where there is none.",
    );
    for kind in types(TYPES) {
        page.request(format!(".Ss {}", kind.name));
        page.prose(&kind.about);
        page.request(".Bl -tag -width Ds");
        for field in kind.fields {
            page.request(format!(".It Ic {}", field.name));
            page.prose(&match field.kind {
                Some(kind) => format!("{}. {}", in_words(&kind), field.about),
                None => field.about,
            });
        }
        page.request(".El");
    }
    page.request(".Sh FILES\n.Bl -tag -width Ds\n.It Pa $XDG_RUNTIME_DIR/kinfold.sock");
    page.prose("The socket; with `--home` kinfold.sock in that directory.");
    page.request(".El\n.Sh EXAMPLES");
    page.prose("Ask how the daemon does:");
    page.request(
        ".Bd -literal -offset indent\ncurl --unix-socket $XDG_RUNTIME_DIR/kinfold.sock http://kinfold/v1/status\n.Ed",
    );
    page.request(
        ".Sh SEE ALSO\n.Xr kinfold 1 ,\n.Xr kinfold-events 1 ,\n.Xr kinfold-metrics 1 ,\n.Xr kinfold-status 1",
    );
    page.into_source()
}

/// A type of the API.
struct Kind {
    name: String,
    about: String,
    fields: Vec<Field>,
}

/// A field, or a word that a value may have.
struct Field {
    name: String,
    /// Its type in the source; `None` for a word.
    kind: Option<String>,
    /// Whether it may be left out.
    is_optional: bool,
    about: String,
}

/// Returns a JSON Schema (draft 2020-12) that has a definition for each type.
pub fn schema() -> serde_json::Value {
    use serde_json::json;
    let mut definitions = serde_json::Map::new();
    for kind in types(TYPES) {
        let is_words = kind.fields.iter().all(|field| field.kind.is_none());
        let definition = if is_words {
            let words: Vec<_> =
                kind.fields.iter().map(|field| json!({"const": field.name, "description": field.about})).collect();
            json!({"description": kind.about, "oneOf": words})
        } else {
            let mut properties = serde_json::Map::new();
            let mut required = vec![];
            for field in kind.fields {
                let mut of = schema_of(field.kind.as_deref().unwrap_or_default());
                of["description"] = field.about.into();
                if !field.is_optional {
                    required.push(field.name.clone());
                }
                properties.insert(field.name, of);
            }
            json!({"description": kind.about, "type": "object", "properties": properties, "required": required})
        };
        definitions.insert(kind.name, definition);
    }
    let bytes = json!({"type": "object", "properties": {"base64": {"type": "string"}, "text": {"type": "string"}},
        "required": ["base64", "text"]});
    definitions.insert("RawPath".to_owned(), json!({"oneOf": [{"type": "string"}, bytes]}));
    json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions})
}

fn schema_of(kind: &str) -> serde_json::Value {
    use serde_json::json;
    let inner = |wrapper: &str| kind.strip_prefix(wrapper).and_then(|rest| rest.strip_suffix('>'));
    if let Some(kind) = inner("Option<") {
        return json!({"anyOf": [schema_of(kind), {"type": "null"}]});
    }
    if let Some(kind) = inner("Vec<") {
        return json!({"type": "array", "items": schema_of(kind)});
    }
    match kind {
        "u64" | "u32" | "usize" => json!({"type": "integer", "minimum": 0}),
        "bool" => json!({"type": "boolean"}),
        "Time" => json!({"type": "string", "format": "date-time"}),
        "String" | "SocketAddr" | "DeviceId" | "FolderId" | "Right" => json!({"type": "string"}),
        other => json!({"$ref": format!("#/$defs/{other}")}),
    }
}

/// Reads the types out of their source.
fn types(source: &str) -> Vec<Kind> {
    let source = source.split("\n#[cfg(test)]").next().unwrap_or_default();
    let mut kinds = vec![];
    let (mut about, mut case) = (vec![], "");
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("/// ") {
            about.push(text.to_owned());
        } else if let Some(rest) = line.strip_prefix("#[serde(rename_all = \"") {
            case = rest.split('"').next().unwrap_or_default();
        } else if let Some(rest) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))
            && let Some(name) = rest.strip_suffix(" {")
        {
            let body = lines.by_ref().take_while(|line| *line != "}").map(str::trim);
            let fields = fields(body, case);
            kinds.push(Kind { name: name.to_owned(), about: about.join(" "), fields });
            (about, case) = (vec![], "");
        } else if !line.starts_with("#[") {
            (about, case) = (vec![], "");
        }
    }
    kinds
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>, case: &str) -> Vec<Field> {
    let (mut about, mut fields, mut has_default) = (vec![], vec![], false);
    for line in lines {
        if let Some(text) = line.strip_prefix("/// ") {
            about.push(text);
        } else if let Some((name, kind)) = line.strip_prefix("pub ").and_then(|line| line.split_once(": ")) {
            let kind = kind.trim_end_matches(',').to_owned();
            let is_optional = std::mem::take(&mut has_default) || kind.starts_with("Option<");
            let about = std::mem::take(&mut about).join(" ");
            fields.push(Field { name: name.to_owned(), kind: Some(kind), is_optional, about });
        } else if line.starts_with("#[") {
            has_default |= line.contains("default");
        } else {
            let name = in_case(line.trim_end_matches(','), case);
            let about = std::mem::take(&mut about).join(" ");
            fields.push(Field { name, kind: None, is_optional: false, about });
        }
    }
    fields
}

fn in_words(kind: &str) -> String {
    let inner = |wrapper: &str| kind.strip_prefix(wrapper).and_then(|rest| rest.strip_suffix('>'));
    if let Some(kind) = inner("Option<") {
        return format!("{}, optional", in_words(kind));
    }
    if let Some(kind) = inner("Vec<") {
        let of = in_words(kind);
        return format!("List of {}", if of.starts_with('`') { of } else { of.to_lowercase() });
    }
    match kind {
        "u64" | "u32" | "usize" => "Number".to_owned(),
        "bool" => "Bool".to_owned(),
        "RawPath" => "Path".to_owned(),
        "Time" => "Time".to_owned(),
        "String" | "SocketAddr" | "DeviceId" | "FolderId" | "Right" => "Text".to_owned(),
        other => format!("`{other}`"),
    }
}

fn in_case(word: &str, case: &str) -> String {
    match case {
        "snake_case" => {
            let mut text = String::new();
            for c in word.chars() {
                if c.is_uppercase() && !text.is_empty() {
                    text.push('_');
                }
                text.extend(c.to_lowercase());
            }
            text
        }
        "lowercase" => word.to_lowercase(),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;

    use crate::control::types::ApiErrorKind;
    use crate::control::types::EventKind;

    #[test]
    fn each_request_that_the_daemon_knows_is_told_and_no_other() {
        let server = include_str!("../../daemon/control.rs");
        let mut known = BTreeSet::new();
        for route in server.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once('"').unwrap();
            let handlers = rest.lines().next().unwrap();
            for (call, method) in [("get(", "GET"), ("post(", "POST")] {
                if handlers.contains(call) {
                    known.insert(format!("{method} {path}"));
                }
            }
        }
        assert!(known.len() > 10, "the routes were not found");
        let told: BTreeSet<String> = REQUESTS.iter().map(|request| request.0.to_owned()).collect();
        assert_eq!(told, known);
    }

    #[test]
    fn each_type_that_is_named_is_told_with_its_fields() {
        let kinds = types(TYPES);
        let names: BTreeSet<&str> = kinds.iter().map(|kind| kind.name.as_str()).collect();
        for Request(_, takes, gives, _) in REQUESTS {
            for name in [takes, gives].map(|text| text.trim_start_matches("list of ")) {
                let is_type = name.starts_with(|c: char| c.is_uppercase());
                assert!(!is_type || names.contains(name), "{name}");
            }
        }
        for kind in &kinds {
            assert!(!kind.about.is_empty() && !kind.fields.is_empty(), "{}", kind.name);
            for field in &kind.fields {
                assert!(!field.about.is_empty(), "{}.{}", kind.name, field.name);
                let words = field.kind.as_deref().map(in_words).unwrap_or_default();
                let named = words.split('`').skip(1).step_by(2);
                named.for_each(|name| assert!(names.contains(name), "{}.{}: {name}", kind.name, field.name));
            }
        }
        let fields = |name: &str| -> Vec<String> {
            kinds.iter().find(|kind| kind.name == name).unwrap().fields.iter().map(|f| f.name.clone()).collect()
        };
        assert_eq!(fields("SyncState"), ["in_sync", "why"]);
    }

    #[test]
    fn words_are_told_as_they_are_written() {
        let kinds = types(TYPES);
        let words = |name: &str| -> Vec<String> {
            let kind = kinds.iter().find(|kind| kind.name == name).unwrap();
            kind.fields.iter().map(|field| format!("\"{}\"", field.name)).collect()
        };
        let json = |kind: &ApiErrorKind| serde_json::to_string(kind).unwrap();
        let all = [ApiErrorKind::Invalid, ApiErrorKind::NotFound, ApiErrorKind::Unavailable, ApiErrorKind::Failed];
        assert_eq!(words("ApiErrorKind"), all.map(|kind| json(&kind)));
        assert!(words("EventKind").contains(&serde_json::to_string(&EventKind::Directory).unwrap()));
    }
}
