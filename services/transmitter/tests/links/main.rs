//! Prepared links from the source to key at both ends, with every service.

#![allow(clippy::unwrap_used)]

mod network;

use distill::config::{Emission, Intensity};
use module::store::KeyDigest;
use network::{Instruments, Network, decoy, gated, quantum_dot};
use proto::detector::v1::module_event::Event;

/// Runs a link to its end.
async fn key(instruments: &Instruments) -> KeyDigest {
    let network = Network::new(instruments);
    let running = [0, 1].map(|end| network.start(instruments, end));
    network.end(running).await;
    let [transmitter, receiver] = network.keys();
    assert_eq!(transmitter, receiver);
    transmitter
}

#[tokio::test(flavor = "multi_thread")]
async fn links_with_decoys_and_with_single_photons_make_equal_key_at_both_ends_and_at_equal_seeds() {
    for instruments in [decoy(1), gated(2), quantum_dot(3)] {
        let first = key(&instruments).await;
        assert!(first.bits > 10_000, "{first:?}");
        assert_eq!(key(&instruments).await, first);
        assert_ne!(key(&Instruments { seed: 99, ..instruments }).await, first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transmitter_that_restarts_meets_its_peer_again_and_the_link_goes_on() {
    let instruments = Instruments { epochs: 1000, ..decoy(4) };
    let network = Network::new(&instruments);
    let [transmitter, receiver] = [0, 1].map(|end| network.start(&instruments, end));
    network.wait(|network| network.blocks()[0] > 0).await;
    transmitter.abort();
    assert!(transmitter.await.unwrap_err().is_cancelled());
    let before = network.monitors[1].status().session;
    network.end([network.start(&instruments, 0), receiver]).await;
    let [transmitter, receiver] = network.keys();
    assert_eq!(transmitter, receiver);
    assert_ne!(network.monitors[1].status().session, before);
    let [_, seen] = network.stores().map(|store| store.digests_from(0));
    let sessions: std::collections::BTreeSet<u64> = seen.values().map(|block| block.session).collect();
    assert!(sessions.len() > 1, "{sessions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_claims_other_intensities_is_refused_by_the_greeting() {
    let instruments = decoy(5);
    let intensity = |mean_photons, probability| Intensity { mean_photons, probability };
    let emission = Emission::TwoDecoys([intensity(0.5, 0.7), intensity(0.2, 0.2), intensity(0.0002, 0.1)]);
    let claims = Instruments { emission, ..instruments.clone() };
    let network = Network::new(&instruments);
    let mut events = network.monitors[1].watch();
    let running = [network.start(&claims, 0), network.start(&instruments, 1)];
    let refused = async {
        loop {
            if let Some(Event::Note(note)) = events.recv().await.unwrap().event
                && note.name == "session-lost"
            {
                break note.message;
            }
        }
    };
    let message = tokio::time::timeout(std::time::Duration::from_secs(60), refused).await.unwrap();
    assert!(message.contains("configur"), "{message}");
    assert_eq!(network.blocks(), [0, 0]);
    running.iter().for_each(|end| end.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_sifting_message_voids_its_round_is_counted_and_the_link_goes_on() {
    let instruments = Instruments { epochs: 1000, ..decoy(6) };
    let network = Network::new(&instruments);
    let running = [0, 1].map(|end| network.start(&instruments, end));
    network.wait(|network| network.blocks()[1] > 0).await;
    *network.forge.lock().unwrap() = 1;
    network.wait(|network| *network.forge.lock().unwrap() == 0).await;
    let before = network.blocks();
    network.end(running).await;
    let voided = network.monitors.each_ref().map(|monitor| monitor.status().blocks_voided);
    assert!(voided.iter().any(|voided| *voided > 0), "{voided:?}");
    assert!(network.blocks().iter().zip(before).all(|(now, before)| *now > before), "{:?}", network.blocks());
    let [transmitter, receiver] = network.keys();
    assert_eq!(transmitter, receiver);
}
