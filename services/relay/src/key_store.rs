//! The stream to the site's key store, and what it was asked and has not answered yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::kms::v1::{RelayAnswer, RelayRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transfer::{KmsAnswer, KmsRequest, TransferId};

use crate::run::{Event, Lives};
use crate::streams::Backoff;
use crate::{KmsDial, messages};

/// Requests without an answer.
const PENDING_MAX: usize = 4096;
/// Levels come at least every five seconds; a key store that is silent for so long has gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Keeps the stream open, until `stop`.
pub async fn keep_dialling(dial: KmsDial, lives: Arc<Lives>, events: mpsc::Sender<Event>, stop: CancellationToken) {
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
                let (tx, rx) = stream.split();
                talk(tx, rx, &lives, &events, &stop).await;
                lasted = begun.elapsed();
            }
            Err(error) => tracing::debug!("the key store is not reached: {}", shell::chain(&error)),
        }
        if !backoff.pause(lasted, &stop).await {
            return;
        }
    }
}

async fn talk(
    tx: mpsc::Sender<RelayRequest>,
    mut rx: mpsc::Receiver<RelayAnswer>,
    lives: &Lives,
    events: &mpsc::Sender<Event>,
    stop: &CancellationToken,
) {
    let life = lives.next();
    let (outbox, mut outgoing) = mpsc::channel(PENDING_MAX);
    if events.send(Event::KmsUp { life, outbox }).await.is_err() {
        return;
    }
    let read = async {
        while let Ok(Some(answer)) = tokio::time::timeout(SILENCE, rx.recv()).await {
            if events.send(Event::KmsSays { life, answer }).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some(request) = outgoing.recv().await {
            if tx.send(request).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
        () = stop.cancelled() => {}
    }
    // Nobody to tell where the service has ended.
    let _ = events.send(Event::KmsDown { life }).await;
}

/// What was asked. The same is not asked twice at a time.
#[derive(Default)]
pub struct Pending {
    requests: BTreeMap<u64, (KmsRequest, String)>,
    known: BTreeMap<(u8, TransferId), u64>,
    next: u64,
    stream: Option<(u64, mpsc::Sender<RelayRequest>)>,
}

impl Pending {
    /// A new stream: everything without an answer is asked again, in order.
    pub fn connect(&mut self, life: u64, outbox: mpsc::Sender<RelayRequest>) {
        for (number, (request, traceparent)) in &self.requests {
            // As many may wait as there can be.
            let _ = outbox.try_send(messages::request(*number, request, traceparent.clone()));
        }
        self.stream = Some((life, outbox));
    }

    /// Whether the present stream has ended.
    pub fn disconnect(&mut self, life: u64) -> bool {
        self.is(life) && self.stream.take().is_some()
    }

    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether this is the present stream.
    pub fn is(&self, life: u64) -> bool {
        self.stream.as_ref().is_some_and(|(present, _)| *present == life)
    }

    pub fn ask(&mut self, request: KmsRequest, traceparent: String) {
        let name = name(&request);
        if self.known.contains_key(&name) {
            return;
        }
        if self.requests.len() >= PENDING_MAX {
            tracing::warn!("too many requests wait for the key store");
            return;
        }
        self.next += 1;
        if let Some((_, outbox)) = &self.stream
            && outbox.try_send(messages::request(self.next, &request, traceparent.clone())).is_err()
        {
            // It takes nothing any more: a new stream is told everything again.
            self.stream = None;
        }
        self.known.insert(name, self.next);
        self.requests.insert(self.next, (request, traceparent));
    }

    /// The request that this answers, and what the answer says.
    pub fn answered(&mut self, answer: &RelayAnswer) -> Option<(KmsRequest, Vec<KmsAnswer>)> {
        let (request, _) = self.requests.get(&answer.request)?;
        let Some(answers) = messages::answers(request, answer) else {
            tracing::warn!("the key store's answer does not fit what it was asked");
            return None;
        };
        let (request, _) = self.requests.remove(&answer.request)?;
        self.known.remove(&name(&request));
        Some((request, answers))
    }
}

fn name(request: &KmsRequest) -> (u8, TransferId) {
    match request {
        KmsRequest::Originate { header, .. } => (0, header.transfer),
        KmsRequest::Reseal { header, .. } => (1, header.transfer),
        KmsRequest::Deliver { header, .. } => (2, header.transfer),
        KmsRequest::Release { group, .. } => (3, *group),
        // At the origin all shares, at the target one.
        KmsRequest::Void { group, transfers } => (4, transfers.first().copied().unwrap_or(*group)),
        KmsRequest::Settle { transfer, .. } => (5, *transfer),
    }
}
