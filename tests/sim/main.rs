//! Several devices with the real engine on simulated disks and networks, all from one seed.
//!
//! People write, rename and delete at any moment; connections are cut, devices crash and come back.
//! In the end everything is connected, and the oracle asks: are all trees equal, is everything still
//! there that nobody knowingly replaced, did each conflict make just as many copies as it must, and do
//! the devices say the truth about being in sync?
//!
//! `sim --shrink n` leaves out of a failing seed all that it does not need to fail.
//! `SIM_SEED=n` plays one seed (`SIM_TRACE=1` prints what happens), `SIM_RUNS=n` that many from `SIM_FROM`
//! on, or from zero. In every third world ignore rules come and go. `tests/sim/long.rs` plays for as long as one likes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod disk;
mod letters;
mod oracle;
mod people;
mod runner;
mod world;

use std::cell::RefCell;

use runner::{fewest, play, play_all, shrink};
use world::World;

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn clusters_converge_and_lose_nothing() {
    if let Some(seed) = number_in("SIM_SEED") {
        World::play(seed);
        return;
    }
    let from = number_in("SIM_FROM").unwrap_or(0);
    let played = play_all(from..from + number_in("SIM_RUNS").unwrap_or(2000), u64::MAX, |_| {});
    let failures = &played.failures;
    assert!(failures.is_empty(), "{} seeds fail:\n{}", failures.len(), failures.join("\n"));
    assert!(played.fewest >= Some(200), "a world was over after {:?} steps", played.fewest);
}

/// A seed reproduces every bug only if it is the whole of what a world depends on.
#[test]
fn a_seed_plays_the_same_way_twice() {
    for seed in 0..24 {
        let (once, again) = (World::trace(seed), World::trace(seed));
        let differs = once.iter().zip(&again).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!("seed {seed} parts at {at}:\n{}\n{}", once[at], again[at]);
        }
        assert_eq!(once.len(), again.len());
        assert!(once.len() > 100);
    }
}

/// A failing world can be taken apart only if its parts play as they did in the whole.
#[test]
fn a_script_plays_as_its_seed_does_and_parts_of_it_play() {
    for seed in 0..12 {
        let script = RefCell::default();
        World::record(seed, &script);
        let mut script = script.into_inner();
        assert!(script.turns.len() >= 200);
        assert!(World::replay(seed, &script, true) == World::trace(seed), "seed {seed} plays otherwise by its script");
        // Any part of it is a world, in which all that is promised holds.
        script.turns = script.turns.into_iter().step_by(3).collect();
        World::replay(seed, &script, false);
        assert_eq!(shrink(seed), None, "seed {seed} fails");
    }
}

#[test]
fn what_a_failure_does_not_need_is_left_out() {
    let all: Vec<u64> = (0..1000).collect();
    let needs = |of: &[u64]| [17, 18, 640].iter().all(|n| of.contains(n));
    assert_eq!(fewest(&all, needs), [17, 18, 640]);
    assert_eq!(fewest(&all, |of: &[u64]| of.len() >= 3).len(), 3);
    assert!(fewest(&all, |_: &[u64]| true).is_empty());
}

/// Seeds that once found something, by the rules of the world as it was then.
#[test]
fn regressions() {
    let found = [
        (34, "the walk below a directory that stays had no end"),
        (168, "an answer to a dropped task let the next one place a file that was not complete"),
        (58, "a deletion was taken for the peer's own, although ours had won"),
        (65, "a task for a file ran on after the file had become a directory at the peer"),
        (30, "one version stood for two modes, by the order of three merges"),
        (227, "a look that missed a file was believed after another had found it"),
        (427, "what was seen below a directory that came and went stayed for ever"),
        (1142, "a chunk asked for in a former life fitted a new request"),
        (82, "an old listing put a child below what had become a symbolic link"),
        (174, "a path about to be looked at was committed again and again, and the look never counted"),
        (42, "a content that nobody had was asked for every two seconds"),
        (929, "a task whose last giver left while it was assembling waited for ever"),
        (1936, "what a former task lacked ended the next one in mid-commit, and the copy went unrecorded"),
        (2209, "failed with an earlier engine; the cause was never named"),
        (2486, "failed with an earlier engine; the cause was never named"),
        (2597, "a look that missed a directory was told after a later one had found it"),
        (7687, "a directory that had been a file at an older look lost what was in it"),
        (2844, "a change of mode released the staging file of another path with the same content"),
        (810, "a link that was renamed away and back could not be replaced"),
        (4190, "what two looks at once saw differently was believed in the order of telling"),
        (1272, "a loser was let go of for an equal copy that did not stay"),
        (2092, "a path counted as deleted that nobody had deleted"),
        (15614, "what had left a directory before that became a link was held below the link for ever"),
        (2379, "a device never said that it was in sync"),
        (20721, "a look was believed that was older than what a commit had done since"),
        (21390, "a look was believed that was older than what a commit had done since"),
        (203_877, "a look was believed that was older than what a commit had done since"),
        (237_652, "a peer was still believed to leave out what it no longer left out, and lacked"),
        (432_036, "a peer was still believed to leave out what it no longer left out, and lacked"),
        (14_841, "what waited for its directory did not go on when a person had made that"),
        (435_057, "two devices waited for each other to say what they left out"),
        (170, "a machine restored from an image counted other changes with numbers that peers knew"),
        (394, "a machine restored from an image counted other changes with numbers that peers knew"),
        (1647, "a machine restored from an image kept to itself what it had changed since"),
        (504_877, "a copy that a crash had kept from the index was made once more"),
        (45_331, "copies of links that led elsewhere had one name on two devices"),
        (429_391, "a copy was made where one of the same content was on its way"),
        (445_430, "a copy was made where one of the same content was on its way"),
        (110_091, "a copy was made where one of the same content was on its way"),
    ];
    let failures: Vec<_> = found.iter().filter_map(|(seed, what)| play(*seed).err().map(|why| (what, why))).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}
