//! Streams to the relays of neighbouring sites: kept up, read and written without anybody waiting for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proto::relay::v1::RelayMessage;
use shell::fault::Desk;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use transfer::{Message, SiteName};

use crate::run::{Event, Lives};
use crate::{NeighbourDial, NeighbourStream, messages};

/// What may wait for one neighbour: more than a whole database of link states, which it is told when it comes.
const OUTBOX_MESSAGES: usize = 2048;
const OUTBOX_BYTES: usize = 8 << 20;
/// A neighbour repeats its link state every ten seconds; one that is silent for so long has gone.
const SILENCE: Duration = Duration::from_secs(60);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
/// A stream that lasted so long was a good one: the next attempt is made at once.
const GOOD: Duration = Duration::from_secs(5);

/// The way out to one neighbour. Dropping it ends the stream.
pub struct Outbox {
    messages: mpsc::Sender<RelayMessage>,
    waiting_bytes: Arc<AtomicUsize>,
    _end: DropGuard,
}

/// The neighbour does not take what is sent to it.
#[derive(Debug)]
pub struct Stuck;

impl Outbox {
    /// Never waits.
    pub fn send(&self, message: Message, traceparent: String) -> Result<(), Stuck> {
        let message = messages::message(message, traceparent);
        let bytes = weight(&message);
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > OUTBOX_BYTES {
            return Err(Stuck);
        }
        self.messages.try_send(message).map_err(|_| Stuck)
    }
}

/// What a message costs while it waits, roughly.
fn weight(message: &RelayMessage) -> usize {
    use proto::relay::v1::relay_message::Message as What;
    match &message.message {
        Some(What::Carry(carry)) => 512 + carry.payload.len(),
        Some(What::LinkState(state)) => 64 + 64 * state.links.len(),
        _ => 512,
    }
}

/// Stops a pause early or late, but never runs wild.
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_FIRST)
    }
}

impl Backoff {
    /// Waits after a stream that lasted so long; false if that was cut short.
    pub async fn pause(&mut self, lasted: Duration, stop: &CancellationToken) -> bool {
        if lasted >= GOOD {
            self.0 = BACKOFF_FIRST;
        }
        let wait = self.0;
        self.0 = (self.0 * 2).min(BACKOFF_LAST);
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = stop.cancelled() => false,
        }
    }
}

/// Keeps a stream to one neighbour open, until `stop`.
pub async fn keep_dialling(
    site: SiteName,
    dial: NeighbourDial,
    lives: Arc<Lives>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    loop {
        let begun = Instant::now();
        let dialled = tokio::select! {
            dialled = dial.dial() => dialled,
            () = stop.cancelled() => return,
        };
        let mut lasted = Duration::ZERO;
        match dialled {
            Ok(stream) => {
                talk(&site, stream, &lives, &events, &stop).await;
                lasted = begun.elapsed();
            }
            Err(error) => tracing::debug!(neighbour = %site, "not reached: {}", shell::chain(&error)),
        }
        if !backoff.pause(lasted, &stop).await {
            return;
        }
    }
}

/// Takes the streams of those neighbours that dial, until `stop`.
pub async fn keep_accepting(
    sites: BTreeMap<String, SiteName>,
    mut incoming: mpsc::Receiver<(String, NeighbourStream)>,
    faults: Option<Desk>,
    lives: Arc<Lives>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let mut talks = JoinSet::new();
    loop {
        tokio::select! {
            Some((site, stream)) = incoming.recv() => {
                let Some(site) = sites.get(&site).cloned() else {
                    tracing::warn!(site, "a stream of a site that should not open one is dropped");
                    continue;
                };
                let stream = match &faults {
                    Some(desk) => desk.reach(site.as_str(), stream),
                    None => Some(stream),
                };
                let Some(stream) = stream else { continue };
                let (lives, events, stop) = (lives.clone(), events.clone(), stop.clone());
                talks.spawn(async move { talk(&site, stream, &lives, &events, &stop).await });
            }
            Some(_) = talks.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    talks.shutdown().await;
}

/// Talks to a neighbour until it leaves or is left.
async fn talk(
    site: &SiteName,
    stream: NeighbourStream,
    lives: &Lives,
    events: &mpsc::Sender<Event>,
    stop: &CancellationToken,
) {
    let life = lives.next();
    let (messages, mut outgoing) = mpsc::channel(OUTBOX_MESSAGES);
    let (end, waiting_bytes) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let outbox = Outbox { messages, waiting_bytes: waiting_bytes.clone(), _end: end.clone().drop_guard() };
    if events.send(Event::NeighbourUp { site: site.clone(), life, outbox }).await.is_err() {
        return;
    }
    let (tx, mut rx) = stream.split();
    let read = async {
        while let Ok(Some(message)) = tokio::time::timeout(SILENCE, rx.recv()).await {
            let said = messages::message_of(message);
            if events.send(Event::NeighbourSays { site: site.clone(), life, said }).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some(message) = outgoing.recv().await {
            waiting_bytes.fetch_sub(weight(&message), Ordering::Relaxed);
            if tx.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
        () = end.cancelled() => {}
        () = stop.cancelled() => {}
    }
    // Nobody to tell where the service has ended.
    let _ = events.send(Event::NeighbourDown { site: site.clone(), life }).await;
}
