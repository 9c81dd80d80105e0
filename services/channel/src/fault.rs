//! What an attacker, or an excavator, does to frames on their way to the peer. Only where the topology allows it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use distill::auth::Frame;
use proto::fault::v1::AttackKind;

/// Frames an attacker keeps for later.
const RECORDED: usize = 4;
/// Longer ones are not kept.
const RECORDED_BYTES: usize = 1 << 20;
/// Longest delay of a frame.
pub const DELAY_MAX: Duration = Duration::from_millis(shell::fault::DELAY_MAX_MS as u64);

/// Orders that wait for frames.
#[derive(Debug, Default)]
pub struct Faults {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    orders: VecDeque<Order>,
    recorded: VecDeque<Bytes>,
    held: Option<Bytes>,
    /// Chooses bits and frames; an attacker's choices need no better randomness.
    serial: u64,
    hit: u64,
}

#[derive(Debug)]
struct Order {
    kind: AttackKind,
    frames: u32,
    delay: Duration,
}

/// A frame as it goes out, and how long it is held back.
pub(crate) type Outgoing = (Duration, Bytes);

impl Faults {
    /// Hits the next `frames` frames to the peer, after what was ordered before.
    pub fn order(&self, kind: AttackKind, frames: u32, delay: Duration) {
        let order = Order { kind, frames: frames.min(shell::fault::FRAMES_MAX), delay: delay.min(DELAY_MAX) };
        self.lock().orders.push_back(order);
    }

    /// Frames that were hit so far.
    pub fn hit(&self) -> u64 {
        self.lock().hit
    }

    /// What becomes of a frame.
    pub(crate) fn apply(&self, frame: Bytes) -> Vec<Outgoing> {
        self.lock().apply(frame)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn apply(&mut self, frame: Bytes) -> Vec<Outgoing> {
        while self.orders.front().is_some_and(|order| order.frames == 0) {
            self.orders.pop_front();
        }
        let late = self.held.take();
        let mut out = match self.orders.front_mut() {
            None => vec![(Duration::ZERO, frame.clone())],
            Some(order) => {
                order.frames -= 1;
                let (kind, delay) = (order.kind, order.delay);
                self.hit += 1;
                self.strike(kind, delay, &frame)
            }
        };
        out.extend(late.map(|late| (Duration::ZERO, late)));
        self.record(frame);
        out
    }

    fn strike(&mut self, kind: AttackKind, delay: Duration, frame: &Bytes) -> Vec<Outgoing> {
        match kind {
            AttackKind::Unspecified => vec![(Duration::ZERO, frame.clone())],
            AttackKind::Tamper => vec![(Duration::ZERO, self.tampered(frame))],
            AttackKind::Inject => vec![(Duration::ZERO, self.tampered(frame)), (Duration::ZERO, frame.clone())],
            AttackKind::Replay => {
                let old = self.number(self.recorded.len());
                let old = self.recorded.get(old).cloned();
                old.into_iter().chain([frame.clone()]).map(|frame| (Duration::ZERO, frame)).collect()
            }
            // Goes out after the next one.
            AttackKind::Reorder => {
                self.held = Some(frame.clone());
                Vec::new()
            }
            AttackKind::Drop => Vec::new(),
            AttackKind::Delay => vec![(delay, frame.clone())],
        }
    }

    /// The same frame with one bit of its content changed: well-formed, so that only the tag can tell.
    fn tampered(&mut self, bytes: &Bytes) -> Bytes {
        let Ok(mut frame) = Frame::decode(bytes) else { return bytes.clone() };
        let mut payload = frame.payload.to_vec();
        if payload.is_empty() {
            payload.push(self.number(256) as u8);
        } else {
            let at = self.number(payload.len());
            payload[at] ^= 1 << self.number(8);
        }
        frame.payload = payload.into();
        frame.encode()
    }

    fn record(&mut self, frame: Bytes) {
        if frame.len() > RECORDED_BYTES {
            return;
        }
        if self.recorded.len() == RECORDED {
            self.recorded.pop_front();
        }
        self.recorded.push_back(frame);
    }

    fn number(&mut self, below: usize) -> usize {
        self.serial = self.serial.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.serial ^ self.serial >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ z >> 31) as usize % below.max(1)
    }
}
