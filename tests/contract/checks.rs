//! Single promises, checked on each index.

use kinfold::engine::index::{Index, Kept, Local};
use kinfold::engine::memory_index::MemoryIndex;
use kinfold::model::id::{ContentId, DeviceTag, Incarnation, Sequence};
use kinfold::model::limits::INLINE_CHUNKS_MAX;
use kinfold::model::path::RelPath;
use kinfold::model::recipe::Recipe;
use kinfold::model::record::{Body, FileBody, Record};
use kinfold::model::stat::{Kind, Stat};
use kinfold::model::version::VersionVector;
use kinfold::store::index::SqliteIndex;

use crate::operations::{chunk, path, recipe};

/// Runs the same check over a new index of each kind.
macro_rules! on_both {
    ($($(#[$doc:meta])* fn $name:ident($index:ident) $body:block)*) => { $(
        #[test]
        fn $name() {
            fn check<I: Index>(mut $index: I) $body
            check(MemoryIndex::new(Incarnation(1)));
            let dir = tempfile::tempdir().unwrap();
            check(SqliteIndex::open(&dir.path().join("index"), Incarnation(1)).unwrap());
        }
    )* };
}

fn file(at: &str, recipe: &Recipe) -> Local {
    let body = Body::File(FileBody { mode: 0o644, mtime_ns: 5, size: recipe.size(), content: ContentId([1; 32]) });
    local(at, body)
}

fn local(at: &str, body: Body) -> Local {
    let record = Record { path: path(at.as_bytes()), version: VersionVector::default(), by: DeviceTag([0; 5]), body };
    let stat = Stat { kind: Kind::File, mode: 0o644, size: 1, mtime_ns: 5, ctime_ns: 6, dev: 7, ino: 8 };
    Local { record, sequence: Sequence(1), stat: Some(stat), ignored: false, since_ns: 0 }
}

fn kept(at: &str, until_ns: i64, file: Option<&str>) -> Kept {
    let body = Body::File(FileBody { mode: 0o644, mtime_ns: 5, size: 100, content: ContentId([1; 32]) });
    let file = file.map(str::to_owned);
    Kept { path: path(at.as_bytes()), body, by: DeviceTag([0; 5]), since_ns: 0, until_ns, file }
}

fn names(locals: &[Local]) -> Vec<String> {
    locals.iter().map(|local| local.record.path.to_string()).collect()
}

on_both! {
    fn children_are_those_right_below_in_the_order_of_names(index) {
        for at in ["d/b", "d", "d-", "d/a/deep", "d/a", "d/a.b", "d/a-"] {
            index.set_local(&local(at, Body::Dir { mode: 0 }), None).unwrap();
        }
        assert_eq!(names(&index.children(None).unwrap()), ["d", "d-"]);
        assert_eq!(names(&index.children(Some(&path(b"d"))).unwrap()), ["d/a", "d/a-", "d/a.b", "d/b"]);
        assert_eq!(names(&index.children(Some(&path(b"d/b"))).unwrap()), [""; 0]);
    }

    fn neither_tombstones_nor_ignored_paths_are_live(index) {
        let dir = path(b"d");
        assert!(!index.has_live_below(&dir).unwrap());
        index.set_local(&local("d", Body::Dir { mode: 0 }), None).unwrap();
        index.set_local(&local("d/gone", Body::Tombstone), None).unwrap();
        let ignored = Local { ignored: true, ..file("d/x/ignored", &recipe(1)) };
        index.set_local(&ignored, Some(&recipe(1))).unwrap();
        index.set_local(&file("d-", &recipe(0)), None).unwrap();
        assert!(!index.has_live_below(&dir).unwrap());
        assert_eq!(index.holders_of(&chunk(1).id, 9).unwrap(), []);
        assert_eq!(index.totals().unwrap().files, 1);
        // When it is no longer ignored, its recipe is still there.
        index.set_local(&Local { ignored: false, ..ignored }, None).unwrap();
        assert!(index.has_live_below(&dir).unwrap());
        assert_eq!(index.holders_of(&chunk(1).id, 9).unwrap(), [path(b"d/x/ignored")]);
        assert_eq!(index.totals().unwrap().files, 2);
    }

    fn a_recipe_stays_while_the_record_is_a_file(index) {
        let at = path(b"f");
        for n in 0..8 {
            index.set_local(&file("f", &recipe(n)), Some(&recipe(n))).unwrap();
            index.set_local(&Local { sequence: Sequence(2), ..file("f", &recipe(n)) }, None).unwrap();
            assert_eq!(index.recipe(&at).unwrap(), Some(recipe(n)));
            index.set_local(&local("f", Body::Tombstone), None).unwrap();
            index.set_local(&file("f", &recipe(n)), None).unwrap();
            assert_eq!(index.recipe(&at).unwrap(), None);
            assert_eq!(index.holders_of(&chunk(1).id, 9).unwrap(), []);
        }
        assert_eq!(index.recipe(&path(b"g")).unwrap(), None);
    }

    fn a_file_that_took_the_place_of_another_is_found_by_its_own_chunks(index) {
        index.set_local(&file("f", &recipe(6)), Some(&recipe(6))).unwrap();
        index.set_local(&file("f", &recipe(7)), Some(&recipe(7))).unwrap();
        assert_eq!(index.holders_of(&chunk(999).id, 9).unwrap(), [path(b"f")]);
        assert_eq!(index.holders_of(&chunk(150).id, 9).unwrap(), []);
        assert_eq!(index.holders_of(&chunk(151).id, 9).unwrap(), [path(b"f")]);
        index.set_local(&file("f", &recipe(2)), Some(&recipe(2))).unwrap();
        assert_eq!(index.holders_of(&chunk(151).id, 9).unwrap(), []);
        assert_eq!(index.holders_of(&chunk(2).id, 9).unwrap(), [path(b"f")]);
        assert_eq!(index.holders_of(&chunk(3).id, 9).unwrap(), [], "agrees in the prefix only");
    }

    fn changes_come_by_sequence_with_short_recipes(index) {
        let long = Recipe::parse((0..=INLINE_CHUNKS_MAX as u32).map(chunk).collect()).unwrap();
        let short = Recipe::parse((0..INLINE_CHUNKS_MAX as u32).map(chunk).collect()).unwrap();
        for (at, recipe, sequence) in [("c", &long, 1), ("b", &short, 2), ("a", &recipe(1), 3)] {
            index.set_local(&Local { sequence: Sequence(sequence), ..file(at, recipe) }, Some(recipe)).unwrap();
        }
        let changes = index.changes_since(Sequence(0), 9).unwrap();
        let (locals, recipes): (Vec<Local>, Vec<_>) = changes.into_iter().unzip();
        assert_eq!(names(&locals), ["c", "b", "a"]);
        assert_eq!(recipes, [None, Some(short), Some(recipe(1))]);
        let after: Vec<Local> = index.changes_since(Sequence(1), 1).unwrap().into_iter().map(|c| c.0).collect();
        assert_eq!(names(&after), ["b"]);
        // What is left out is told as well; that it is, and in its turn.
        let ignored = Local { ignored: true, sequence: Sequence(4), ..file("c", &long) };
        index.set_local(&ignored, None).unwrap();
        let changes = index.changes_since(Sequence(0), 9).unwrap();
        assert_eq!(names(&changes.iter().map(|c| c.0.clone()).collect::<Vec<_>>()), ["b", "a", "c"]);
        assert!(changes[2].0.ignored);
    }

    fn an_inode_leads_to_its_live_files(index) {
        index.set_local(&local("gone", Body::Tombstone), None).unwrap();
        index.set_local(&local("dir", Body::Dir { mode: 0 }), None).unwrap();
        assert_eq!(index.by_inode(7, 8, 9).unwrap(), []);
        let live = file("file", &recipe(1));
        index.set_local(&live, None).unwrap();
        assert_eq!(index.by_inode(7, 8, 9).unwrap(), [live]);
        assert_eq!(index.by_inode(6, 8, 9).unwrap(), []);
        index.set_local(&file("also", &recipe(1)), None).unwrap();
        let mut names = names(&index.by_inode(7, 8, 9).unwrap());
        names.sort();
        assert_eq!(names, ["also", "file"]);
        assert_eq!(index.by_inode(7, 8, 1).unwrap().len(), 1);
    }

    fn former_versions_expire_oldest_first_until_the_rest_fits(index) {
        for (at, until, name) in [("f", 3, "three"), ("f", 1, "one"), ("f/below", 2, "two"), ("f-", 4, "four")] {
            index.add_kept(&kept(at, until, Some(name))).unwrap();
        }
        index.add_kept(&kept("new", 0, None)).unwrap();
        assert_eq!(index.kept_bytes().unwrap(), 400);
        let untils = |below| -> Vec<i64> {
            index.kept(Some(&path(b"f")), below).unwrap().iter().map(|kept| kept.until_ns).collect()
        };
        assert_eq!(untils(false), [3, 1]);
        assert_eq!(untils(true), [3, 2, 1]);
        assert_eq!(index.expire_kept(2, u64::MAX, 9).unwrap(), ["one"]);
        assert_eq!(index.expire_kept(0, 150, 1).unwrap(), ["two"]);
        assert_eq!(index.expire_kept(0, 150, 9).unwrap(), ["three"]);
        assert_eq!(index.expire_kept(0, 150, 9).unwrap(), [""; 0]);
        assert_eq!(index.kept_bytes().unwrap(), 100);
        assert_eq!(index.kept(None, true).unwrap().len(), 1);
    }

    fn former_versions_are_told_in_pages_each_once(index) {
        let all = [("a", 9), ("d", 5), ("d", 7), ("d/x", 1), ("d/x", 8), ("d-", 2), ("e", 3)];
        for at in [4, 1, 6, 0, 3, 5, 2] {
            index.add_kept(&kept(all[at].0, all[at].1, Some("file"))).unwrap();
        }
        for (top, expected) in [(None, &all[..]), (Some(path(b"d")), &all[1..5]), (Some(path(b"none")), &[])] {
            for limit in [1, 2, 3, 100] {
                let (mut told, mut after) = (Vec::new(), None);
                loop {
                    let page = index.kept_page(top.as_ref(), after.as_ref().map(|(at, n)| (at, *n)), limit).unwrap();
                    assert!(page.len() <= limit);
                    let Some(last) = page.last() else { break };
                    after = Some((last.path.clone(), last.until_ns));
                    told.extend(page.into_iter().map(|kept| (kept.path.to_string(), kept.until_ns)));
                }
                let expected: Vec<_> = expected.iter().map(|(at, n)| ((*at).to_owned(), *n)).collect();
                assert_eq!(told, expected, "{top:?} {limit}");
            }
        }
        // A place that lies outside of what is asked for leads nowhere else.
        let page = |after: &str| index.kept_page(Some(&path(b"d")), Some((&path(after.as_bytes()), 0)), 100).unwrap().len();
        assert_eq!((page("a"), page("e")), (4, 0));
    }

    fn conflict_copies_are_listed_while_they_are_there(index) {
        let copy = |dir: &str| format!("{dir}/f.conflict-20231114-221320-qqqqqqq.txt");
        for dir in ["b", "a-", "a/z"] {
            index.set_local(&file(&copy(dir), &recipe(1)), None).unwrap();
        }
        assert_eq!(names(&index.conflicts().unwrap()), [copy("a/z"), copy("a-"), copy("b")]);
        index.set_local(&local(&copy("b"), Body::Tombstone), None).unwrap();
        index.drop_local(&path(copy("a-").as_bytes())).unwrap();
        assert_eq!(names(&index.conflicts().unwrap()), [copy("a/z")]);
    }

    fn a_longest_path_and_name_are_held(index) {
        let deep = "d/".repeat(511) + "f";
        let wide = format!("{}/{}", "n".repeat(255), "m".repeat(255));
        for at in [deep, wide] {
            let at: RelPath = path(at.as_bytes());
            let held = Local { record: Record { path: at.clone(), ..file("x", &recipe(6)).record }, ..file("x", &recipe(6)) };
            index.set_local(&held, Some(&recipe(6))).unwrap();
            assert_eq!(index.local(&at).unwrap(), Some(held));
            assert!(index.holders_of(&chunk(200).id, 9).unwrap().contains(&at));
            for above in at.ancestors() {
                assert!(index.has_live_below(&above).unwrap());
            }
        }
    }
}
