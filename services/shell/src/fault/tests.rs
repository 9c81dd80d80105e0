//! A desk takes orders, and what is wrong begins and ends when it should.

use std::sync::Arc;
use std::time::Duration;

use proto::fault::v1::fault::What;
use proto::fault::v1::{AttackKind, ClockStep, ClockStop, DiskFull, Fault, FrameAttack, Loss, Partition, Phase, Stop};

use super::*;
use crate::dial::{Dial, MemoryDial};
use crate::duplex::Duplex;

const EPOCH_PS: u64 = 20_000_000_000;
const SECOND_PS: u64 = 1_000_000_000_000;

fn desk(kind: Kind) -> Desk {
    Desk::open(Place::new("service", "sophia", "link", kind, EPOCH_PS)).unwrap()
}

fn order(id: &str, what: What) -> Order {
    let fault = Fault { what: Some(what) };
    Order { id: id.to_owned(), fault, description: format!("{id} it is"), at_ps: 0, duration_ps: 0 }
}

fn cut(outputs: &[u32]) -> What {
    What::Loss(Loss { outputs: outputs.to_vec(), loss_db: 0.0, cut: true })
}

fn loss(loss_db: f64) -> What {
    What::Loss(Loss { outputs: vec![0], loss_db, cut: false })
}

#[tokio::test]
async fn scheduled_light_is_lost_from_its_epoch_to_its_end_and_not_beyond() {
    let desk = desk(Kind::Source);
    let mut events = desk.watch();
    let planned = Order { at_ps: SECOND_PS, duration_ps: SECOND_PS / 10, ..order("cut", cut(&[1])) };
    let state = desk.inject(planned).await.unwrap();
    assert_eq!(state.phase(), Phase::Waiting);
    assert_eq!(events.recv().await.unwrap().phase(), Phase::Waiting);
    for epoch in 0..50 {
        assert_eq!(desk.enter_epoch(epoch).loss_db, [0.0; 2], "epoch {epoch}");
    }
    for epoch in 50..55 {
        let effects = desk.enter_epoch(epoch);
        assert_eq!((effects.loss_db, effects.ids), ([0.0, f64::INFINITY], vec!["cut".to_owned()]), "epoch {epoch}");
    }
    assert_eq!(desk.enter_epoch(55), Effects::default());
    let begun = events.recv().await.unwrap();
    assert_eq!((begun.phase(), begun.epoch_first, begun.epoch_end), (Phase::Active, 50, 55));
    assert_eq!(begun.simulated_s, 1.0);
    let over = events.recv().await.unwrap();
    assert_eq!((over.phase(), over.epoch_end), (Phase::Over, 55));
    assert!(desk.list().is_empty());
    let late = desk.inject(Order { at_ps: SECOND_PS, ..order("late", cut(&[0])) }).await;
    assert!(matches!(late, Err(Refusal::Past { asked_s: 1.0, .. })), "{late:?}");
}

#[tokio::test]
async fn losses_add_up_and_are_cleared_one_by_one() {
    let desk = desk(Kind::Source);
    let orders = async { tokio::join!(desk.inject(order("one", loss(3.0))), desk.inject(order("two", loss(1.5)))) };
    let light = async {
        tokio::task::yield_now().await;
        desk.enter_epoch(7)
    };
    let ((one, two), effects) = tokio::join!(orders, light);
    assert_eq!((one.unwrap().epoch_first, two.unwrap().epoch_first), (7, 7), "the answer says when it took effect");
    assert_eq!(effects.loss_db, [4.5, 0.0]);
    assert_eq!(desk.inject(order("one", loss(1.0))).await.unwrap_err(), Refusal::Known("one".to_owned()));
    assert_eq!((desk.clear("one"), desk.clear("one")), (1, 0));
    assert_eq!(desk.enter_epoch(8).loss_db, [1.5, 0.0]);
    assert_eq!(desk.clear(""), 1);
    assert_eq!(desk.enter_epoch(9), Effects::default());
}

#[tokio::test]
async fn a_step_of_a_clock_is_known_before_it_comes() {
    let desk = desk(Kind::Detector);
    let step = What::ClockStep(ClockStep { by_ps: -3_000_000_000 });
    let planned = Order { at_ps: SECOND_PS, duration_ps: SECOND_PS, ..order("step", step) };
    desk.inject(planned).await.unwrap();
    let mut known = None;
    for epoch in 0..60 {
        let effects = desk.enter_epoch(epoch);
        if let Some(shift) = effects.clock.first() {
            known.get_or_insert((epoch, *shift));
        }
    }
    let expected = ClockShift { epoch_first: 50, epoch_end: 100, by_ps: -3_000_000_000 };
    assert_eq!(known, Some((47, expected)));
}

#[tokio::test]
async fn a_clock_that_is_not_simulated_is_not_stepped_but_may_stop() {
    let place = Place::new("service", "sophia", "link", Kind::Detector, EPOCH_PS).with_clock(false);
    let desk = Desk::open(place).unwrap();
    let step = What::ClockStep(ClockStep { by_ps: -3_000_000_000 });
    assert_eq!(desk.inject(order("step", step)).await.unwrap_err(), Refusal::NoClock);
    desk.inject(order("still", What::ClockStop(ClockStop {}))).await.unwrap();
    assert!(desk.clock_stands_still());
}

#[tokio::test]
async fn what_goes_by_wall_time_is_over_by_itself() {
    let desk = desk(Kind::Detector);
    let full = Order { duration_ps: SECOND_PS / 5, ..order("full", What::DiskFull(DiskFull {})) };
    desk.inject(full).await.unwrap();
    desk.inject(order("still", What::ClockStop(ClockStop {}))).await.unwrap();
    assert!(desk.disk().is_full() && desk.clock_stands_still());
    let disk = desk.disk();
    let mut events = desk.watch();
    let over = events.recv().await.unwrap();
    assert_eq!((over.id.as_str(), over.phase()), ("full", Phase::Over));
    assert!(!disk.is_full() && desk.clock_stands_still());
    let (waiting, cleared) = tokio::join!(desk.clock_runs(), async { desk.clear("still") });
    assert_eq!((waiting, cleared), ((), 1));
}

#[tokio::test]
async fn what_goes_by_wall_time_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let place =
        || Place { record: Some(folder.path().join("kms.faults")), ..Place::new("kms", "sophia", "", Kind::Kms, 0) };
    let desk = Desk::open(place()).unwrap();
    desk.inject(order("full", What::DiskFull(DiskFull {}))).await.unwrap();
    desk.inject(order("apart", What::Partition(Partition { site: "valrose".to_owned() }))).await.unwrap();
    drop(desk);
    let desk = Desk::open(place()).unwrap();
    assert!(desk.disk().is_full() && desk.is_cut_off("valrose") && !desk.is_cut_off("calern"));
    desk.clear("");
    drop(desk);
    assert!(!Desk::open(place()).unwrap().disk().is_full());
    clear_records(folder.path()).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_stream_ends_when_its_sites_are_cut_off_and_new_ones_come_when_they_are_not() {
    let desk = desk(Kind::Channel);
    let (door, mut streams) = tokio::sync::mpsc::channel::<Duplex<u32, u32>>(2);
    let way: Arc<dyn Dial<u32, u32>> = dial(Some(&desk), "valrose", Arc::new(MemoryDial::new(door, 1)));
    let mut ours = way.dial().await.unwrap();
    let mut theirs = streams.recv().await.unwrap();
    ours.send(1).await.unwrap();
    theirs.send(2).await.unwrap();
    assert_eq!((theirs.receive().await, ours.receive().await), (Some(1), Some(2)));
    desk.inject(order("apart", What::Partition(Partition { site: "valrose".to_owned() }))).await.unwrap();
    assert_eq!((theirs.receive().await, ours.receive().await), (None, None));
    let error = way.dial().await.unwrap_err();
    assert!(error.to_string().contains("sophia and valrose are cut off"), "{error}");
    assert!(desk.reach("valrose", Duplex::<u32, u32>::pair(1).0).is_none());
    assert!(desk.reach("calern", Duplex::<u32, u32>::pair(1).0).is_some());
    desk.clear("apart");
    let ours = way.dial().await.unwrap();
    let mut theirs = streams.recv().await.unwrap();
    drop(ours);
    assert_eq!(theirs.receive().await, None, "an end that leaves is seen to leave");
}

#[tokio::test]
async fn a_task_that_is_stopped_may_come_back_when_the_time_is_over() {
    let desk = desk(Kind::Relay);
    let stop = Order { duration_ps: SECOND_PS / 5, ..order("stop", What::Stop(Stop {})) };
    let (stopped, ()) = tokio::join!(desk.inject(stop), desk.crashed());
    assert_eq!(stopped.unwrap().phase(), Phase::Active);
    let begun = tokio::time::Instant::now();
    desk.released().await;
    assert!(begun.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn attacks_reach_the_attacker_at_once() {
    let desk = desk(Kind::Channel);
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    desk.on_attack(move |attack| tx.send(attack).unwrap());
    let attack = FrameAttack { kind: AttackKind::Drop.into(), frames: 3, delay_ms: 0 };
    desk.inject(order("strike", What::Attack(attack))).await.unwrap();
    assert_eq!(rx.recv().await, Some(attack));
    assert!(desk.list().is_empty(), "an order, not a state");
}

#[tokio::test]
async fn orders_without_sense_are_refused() {
    let bad = [
        (Kind::Source, order("", cut(&[0]))),
        (Kind::Source, order("Upper", cut(&[0]))),
        (Kind::Source, Order { description: "two\nlines".to_owned(), ..order("a", cut(&[0])) }),
        (Kind::Source, Order { fault: Fault::default(), ..order("a", cut(&[0])) }),
        (Kind::Source, Order { at_ps: u64::MAX, ..order("a", cut(&[0])) }),
        (Kind::Source, order("a", cut(&[]))),
        (Kind::Source, order("a", cut(&[2]))),
        (Kind::Source, order("a", loss(f64::NAN))),
        (Kind::Source, order("a", loss(-1.0))),
        (Kind::Source, order("a", loss(101.0))),
        (Kind::Source, order("a", What::DiskFull(DiskFull {}))),
        (Kind::Kms, order("a", cut(&[0]))),
        (Kind::Kms, Order { at_ps: 1, ..order("a", What::DiskFull(DiskFull {})) }),
        (Kind::Kms, order("a", What::Partition(Partition { site: "sophia".to_owned() }))),
        (Kind::Detector, order("a", What::ClockStep(ClockStep { by_ps: 0 }))),
        (Kind::Detector, order("a", What::ClockStep(ClockStep { by_ps: EPOCH_PS as i64 + 1 }))),
        (Kind::Detector, order("a", What::ClockStep(ClockStep { by_ps: i64::MIN }))),
        (Kind::Channel, order("a", What::Attack(FrameAttack::default()))),
    ];
    for (kind, order) in bad {
        let desk = desk(kind);
        assert!(desk.inject(order.clone()).await.is_err(), "{order:?}");
        assert!(desk.list().is_empty());
    }
    let desk = desk(Kind::Kms);
    for number in 0..FAULTS_MAX {
        desk.inject(order(&format!("a{number}"), What::DiskFull(DiskFull {}))).await.unwrap();
    }
    assert_eq!(desk.inject(order("one-more", What::DiskFull(DiskFull {}))).await.unwrap_err(), Refusal::TooMany);
}
