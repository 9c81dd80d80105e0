//! The way between the two key stores, and what happens on it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::BoxFuture;
use proto::kms::v1::PairMessage;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shell::dial::Dial;
use shell::duplex::Duplex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::SITES;
use crate::pair::{MESSAGES_IN_FLIGHT, PairStream};

/// Neither direction has one of these to come.
const NEVER: i64 = i64::MAX;

pub struct Net {
    seed: u64,
    streams: AtomicU64,
    /// Where streams to the follower go while it runs.
    door: Mutex<Option<mpsc::Sender<(String, PairStream)>>>,
    /// Messages until a stream breaks, and until one is doubled.
    until_cut: AtomicI64,
    until_double: AtomicI64,
    parted: AtomicBool,
    /// In a partition streams stall, and nothing tells the ends; otherwise they break.
    stalls: AtomicBool,
    calm: AtomicBool,
    cut: Mutex<CancellationToken>,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            streams: AtomicU64::new(0),
            door: Mutex::default(),
            until_cut: AtomicI64::new(NEVER),
            until_double: AtomicI64::new(NEVER),
            parted: AtomicBool::new(false),
            stalls: AtomicBool::new(false),
            calm: AtomicBool::new(false),
            cut: Mutex::new(CancellationToken::new()),
        }
    }

    pub fn open_door(&self, door: mpsc::Sender<(String, PairStream)>) {
        *self.door.lock().unwrap() = Some(door);
    }

    pub fn cut_after(&self, messages: i64) {
        self.until_cut.store(messages, Ordering::Relaxed);
    }

    pub fn double_after(&self, messages: i64) {
        self.until_double.store(messages, Ordering::Relaxed);
    }

    pub fn part(&self, stalls: bool) {
        self.stalls.store(stalls, Ordering::Relaxed);
        self.parted.store(true, Ordering::Relaxed);
        if !stalls {
            self.break_streams();
        }
    }

    pub fn join(&self) {
        // What stalled for long is not what comes next: a new connection is made.
        if self.parted.swap(false, Ordering::Relaxed) && self.stalls.load(Ordering::Relaxed) {
            self.break_streams();
        }
    }

    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.cut_after(NEVER);
        self.double_after(NEVER);
    }

    pub fn break_streams(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }

    fn connect(self: &Arc<Self>) -> Result<PairStream> {
        if self.parted.load(Ordering::Relaxed) {
            bail!("the sites are parted");
        }
        let Some(door) = self.door.lock().unwrap().clone() else { bail!("nobody is there") };
        let (ours, our_wire) = Duplex::pair(MESSAGES_IN_FLIGHT);
        let (theirs, their_wire) = Duplex::pair(MESSAGES_IN_FLIGHT);
        if door.try_send((SITES[0].to_owned(), theirs)).is_err() {
            bail!("nobody is there");
        }
        let (our_tx, our_rx) = our_wire.split();
        let (their_tx, their_rx) = their_wire.split();
        let cut = self.cut.lock().unwrap().child_token();
        let number = self.streams.fetch_add(2, Ordering::Relaxed);
        for (number, rx, tx) in [(number, our_rx, their_tx), (number + 1, their_rx, our_tx)] {
            let (net, cut) = (self.clone(), cut.clone());
            let rng = ChaCha8Rng::seed_from_u64(self.seed << 20 ^ number);
            tokio::spawn(async move {
                tokio::select! {
                    () = net.carry(rng, rx, tx, &cut) => cut.cancel(),
                    () = cut.cancelled() => {}
                }
            });
        }
        Ok(ours)
    }

    async fn carry(
        &self,
        mut rng: ChaCha8Rng,
        mut rx: mpsc::Receiver<PairMessage>,
        tx: mpsc::Sender<PairMessage>,
        cut: &CancellationToken,
    ) {
        while let Some(message) = rx.recv().await {
            while self.parted.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let calm = self.calm.load(Ordering::Relaxed);
            if !calm && rng.random_range(0..20) == 0 {
                tokio::time::sleep(Duration::from_millis(rng.random_range(1..12))).await;
            }
            if self.until_cut.fetch_sub(1, Ordering::Relaxed) == 0 {
                self.cut_after(NEVER);
                cut.cancel();
                return;
            }
            let doubled = self.until_double.fetch_sub(1, Ordering::Relaxed) == 0;
            for _ in 0..1 + usize::from(doubled) {
                if tx.send(message.clone()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The coordinator's way to the follower.
pub struct Way(pub Arc<Net>);

impl Dial<PairMessage, PairMessage> for Way {
    fn dial(&self) -> BoxFuture<'_, Result<PairStream>> {
        Box::pin(async move { self.0.connect() })
    }
}
