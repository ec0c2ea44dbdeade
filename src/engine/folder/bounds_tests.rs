//! What one peer can make an index hold, and how often it can make it begin anew.

use super::tests::{Bench, FOLDER, peer};
use super::*;
use crate::wire::message::Ack;

#[test]
fn a_peer_with_more_changes_than_can_wait_is_asked_for_no_more_and_then_cut_off() {
    let mut bench = Bench::new();
    bench.folder.remotes_max = (3, 6);
    bench.meet(Right::Reader, None);
    let acknowledged = |bench: &mut Bench| {
        let ack = |o: &Output| match o {
            Output::Send(_, Message::Ack(ack)) => Some(ack.received.0),
            _ => None,
        };
        std::iter::from_fn(|| bench.take(ack)).last()
    };
    let mut said = Vec::new();
    for n in 1..=6 {
        bench.hear(&format!("d{n}"), n, Body::Dir { mode: 0o755 }, None);
        said.extend(acknowledged(&mut bench));
    }
    assert_eq!(said, [1, 2]);
    assert!(!bench.is_told_off());
    // What may be taken after all makes room, and that is said.
    bench.meet(Right::Writer, None);
    let items = bench.commit().unwrap();
    assert_eq!(items.len(), 6);
    bench.meet(Right::Reader, None);
    bench.hear("d7", 7, Body::Dir { mode: 0o755 }, None);
    assert!(bench.is_told_off(), "seven wait");
    assert_eq!(bench.folder.index().remote_count(&peer()).unwrap(), 6);
}

#[test]
fn a_peer_that_claims_unknown_changes_of_ours_again_is_cut_off() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let claim = |bench: &mut Bench| {
        let ack = Ack { folder: FOLDER, received: Sequence(1 << 40), last: Sequence(0), tree: [0; 32] };
        bench.give(Input::Message(peer(), Message::Ack(ack)));
        bench.folder.index().incarnation()
    };
    let first = bench.folder.index().incarnation();
    let second = claim(&mut bench);
    assert!(first != second && !bench.is_told_off());
    bench.meet(Right::Owner, None);
    assert_eq!(claim(&mut bench), second);
    assert!(bench.is_told_off());
    bench.at += limits::RENEWAL_PAUSE;
    bench.meet(Right::Owner, None);
    assert_ne!(claim(&mut bench), second);
}
