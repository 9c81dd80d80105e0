use shell::dial::{Door, MemoryDial};

use super::*;

const SKEW_PS: u64 = 1000;

/// A source's end, and the door of a pacer that a test plays.
fn network() -> (NetworkTime, Door<Duplex<Grant, Report>>, Arc<Status>) {
    let door = Door::new(1);
    let dial: PacerDial = Arc::new(MemoryDial::through(door.clone(), CAPACITY));
    let status = Arc::new(Status::default());
    (NetworkTime::keep(dial, status.clone(), &CancellationToken::new()), door, status)
}

async fn said(pacer: &mut Duplex<Grant, Report>) -> What {
    pacer.receive().await.unwrap().report.unwrap()
}

fn grant(number: u64, start_ps: u64, limit_ps: u64) -> Grant {
    Grant { number, start_ps, limit_ps, network_ps: start_ps, skew_ps: SKEW_PS, behind: false }
}

#[tokio::test]
async fn a_source_begins_where_the_pacer_says_and_tells_each_quarter_of_the_skew() {
    let (mut network, door, status) = network();
    let mut streams = door.open();
    let mut pacer = streams.recv().await.unwrap();
    assert_eq!(said(&mut pacer).await, What::Idle(Idle::default()));
    let joining = tokio::spawn(async move { (network.join(500).await, network) });
    assert_eq!(said(&mut pacer).await, What::Join(Join { number: 1, at_ps: 500 }));
    pacer.send(grant(1, 700, 1700)).await.unwrap();
    let (start, mut network) = joining.await.unwrap();
    assert_eq!((start.unwrap(), status.now().network_ps), (700, 700));
    for from_ps in (700..1600).step_by(100) {
        network.allow(from_ps, from_ps + 100).await.unwrap();
    }
    // In a runtime of one thread the last place alone is told.
    assert_eq!(said(&mut pacer).await, What::Emitting(Emitting { number: 1, reached_ps: 1300, wants_ps: 0 }));
    network.leave(None);
    assert_eq!(said(&mut pacer).await, What::Idle(Idle { reached_ps: 1500, ended: false }));
    // The end of a run is said once, and is nothing that a session without light takes back.
    network.leave(Some(1600));
    let over = What::Idle(Idle { reached_ps: 1600, ended: true });
    assert_eq!(said(&mut pacer).await, over);
    network.leave(None);
    drop(pacer);
    assert_eq!(said(&mut streams.recv().await.unwrap()).await, over);
}

#[tokio::test]
async fn without_a_pacer_a_source_goes_to_its_limit_and_on_when_there_is_one_again() {
    let (mut network, door, status) = network();
    let mut streams = door.open();
    let mut pacer = streams.recv().await.unwrap();
    let joining = tokio::spawn(async move { (network.join(0).await, network) });
    while said(&mut pacer).await == What::Idle(Idle::default()) {}
    pacer.send(grant(1, 0, 1000)).await.unwrap();
    let (start, mut network) = joining.await.unwrap();
    assert_eq!(start.unwrap(), 0);
    drop((pacer, streams));
    network.allow(900, 1000).await.unwrap();
    let going = tokio::spawn(async move { (network.allow(1000, 1100).await, network) });
    while !status.now().pacer_away || !status.now().waits_for_network {
        tokio::task::yield_now().await;
    }
    let mut pacer = door.open().recv().await.unwrap();
    assert_eq!(said(&mut pacer).await, What::Emitting(Emitting { number: 1, reached_ps: 1000, wants_ps: 1100 }));
    assert!(!going.is_finished());
    pacer.send(grant(1, 0, 1100)).await.unwrap();
    let (allowed, mut network) = going.await.unwrap();
    allowed.unwrap();
    let now = status.now();
    assert!(!now.waits_for_network && !now.pacer_away);
    pacer.send(Grant { number: 1, behind: true, ..Grant::default() }).await.unwrap();
    let behind = network.allow(1100, 1200).await.unwrap_err().to_string();
    assert!(behind.contains("went on without this link"), "{behind}");
}
