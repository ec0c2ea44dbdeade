//! Format versions: creating the newest, and leading older ones to it.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::model::id::Incarnation;
use crate::store::error::{At, StoreError};
use crate::store::meta::Meta;

/// The newest format version, which `schema.sql` describes.
pub(crate) const VERSION: i64 = 7;
/// "KINF".
const APPLICATION_ID: i64 = 0x4b49_4e46;

/// The steps from each version to the next; the first leads from version 1 to 2.
const STEPS: &[&str] = &[
    "CREATE TABLE brake (one INTEGER PRIMARY KEY CHECK (one = 1), data BLOB NOT NULL)",
    "CREATE TABLE epoch (one INTEGER PRIMARY KEY CHECK (one = 1), data BLOB NOT NULL)",
    "CREATE TABLE scrub (one INTEGER PRIMARY KEY CHECK (one = 1), data BLOB NOT NULL)",
    "ALTER TABLE peer ADD COLUMN agreed INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX entry_by_seq; CREATE INDEX entry_by_seq ON entry (seq); \
     ALTER TABLE peer ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0; ALTER TABLE peer ADD COLUMN apart BLOB",
    "CREATE TABLE life (one INTEGER PRIMARY KEY CHECK (one = 1), data BLOB NOT NULL); \
     ALTER TABLE peer ADD COLUMN life INTEGER NOT NULL DEFAULT 0",
];

const _: () = assert!(STEPS.len() as i64 + 1 == VERSION);

/// Brings the file to the newest version, creating the tables in an empty one.
///
/// Whatever happens, the file afterwards has one version or another as a whole. A file that is newer,
/// or that is something else altogether, is not changed.
pub(crate) fn bring_up(conn: &mut Connection, path: &Path, if_new: Incarnation) -> Result<(), StoreError> {
    bring_up_by(conn, path, if_new, STEPS)
}

fn bring_up_by(conn: &mut Connection, path: &Path, if_new: Incarnation, steps: &[&str]) -> Result<(), StoreError> {
    let known = steps.len() as i64 + 1;
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).at("file")?;
    let number = |sql: &str| transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).at("file");
    let (application, found) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    if application == 0 && found == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0 {
        transaction.execute_batch(include_str!("schema.sql")).at("file")?;
        Meta::new(if_new).write(&transaction)?;
    } else if application != APPLICATION_ID || found < 1 {
        return Err(StoreError::corrupt("file", "it is not an index of kinfold"));
    } else if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    let from = number("PRAGMA user_version")?;
    for version in from..known {
        let step = usize::try_from(version - 1).ok().and_then(|nth| steps.get(nth));
        transaction.execute_batch(step.copied().unwrap_or_default()).at("file")?;
        transaction.pragma_update(None, "user_version", version + 1).at("file")?;
    }
    transaction.commit().at("file")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps beyond those that there are.
    const STEPS_ON: &[&str] = &["CREATE TABLE two (a)", "CREATE TABLE three (a)"];

    fn steps(more: usize) -> Vec<&'static str> {
        STEPS.iter().chain(&STEPS_ON[..more]).copied().collect()
    }

    fn version(conn: &Connection) -> i64 {
        conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    fn up(conn: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
        bring_up_by(conn, Path::new("index"), Incarnation(1), steps)
    }

    #[test]
    fn an_older_file_is_led_step_by_step_to_the_newest_version() {
        let mut conn = Connection::open_in_memory().unwrap();
        up(&mut conn, &steps(0)).unwrap();
        assert_eq!(version(&conn), VERSION);
        up(&mut conn, &steps(1)).unwrap();
        assert_eq!(version(&conn), VERSION + 1);
        up(&mut conn, &steps(2)).unwrap();
        assert_eq!(version(&conn), VERSION + 2);
        up(&mut conn, &steps(2)).unwrap();
        conn.execute_batch("SELECT a FROM two, three").unwrap_err();
        conn.execute_batch("SELECT two.a FROM two, three").unwrap();
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_version() {
        let mut conn = Connection::open_in_memory().unwrap();
        up(&mut conn, &steps(0)).unwrap();
        up(&mut conn, &[&steps(1)[..], &["no sense"]].concat()).unwrap_err();
        assert_eq!(version(&conn), VERSION);
        conn.execute_batch("SELECT * FROM two").unwrap_err();
    }

    #[test]
    fn a_newer_file_asks_for_an_update_of_the_program() {
        let mut conn = Connection::open_in_memory().unwrap();
        up(&mut conn, &steps(2)).unwrap();
        let error = up(&mut conn, STEPS).unwrap_err();
        let StoreError::Newer { found, known, .. } = error else { panic!("{error}") };
        assert_eq!((found, known), (VERSION + 2, VERSION));
        assert!(error.to_string().contains("update kinfold"), "{error}");
        assert_eq!(version(&conn), VERSION + 2);
    }

    #[test]
    fn a_database_of_something_else_is_left_alone() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE theirs (a)").unwrap();
        assert!(matches!(up(&mut conn, STEPS), Err(StoreError::Corrupt { .. })));
        assert_eq!(version(&conn), 0);
    }
}
