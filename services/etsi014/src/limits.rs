//! How much a server puts up with.

use std::time::Duration;

/// Bounds on what clients may hold, send and wait for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time beyond their handshake; more are closed at once.
    pub connections: usize,
    /// Of them those of one SAE, so that no SAE keeps the others out.
    pub connections_per_sae: usize,
    /// Handshakes at a time; for more, those without progress for the longest time are closed.
    pub handshakes: usize,
    /// Time until the first byte of a connection.
    pub first_byte: Duration,
    /// Time for a handshake.
    pub handshake: Duration,
    /// How long a connection may wait for its next request.
    pub idle: Duration,
    /// Time from the first byte of a request's head to the last.
    pub head: Duration,
    /// Time from the end of a request's head to the end of its body.
    pub body: Duration,
    /// Time that the key supply gets for an answer.
    pub answer: Duration,
    /// Time for a client to take a whole answer.
    pub write: Duration,
    /// Time for requests in work to end once the server stops.
    pub drain: Duration,
    pub head_bytes: usize,
    pub body_bytes: usize,
    /// Keys that one request may name.
    pub key_ids: usize,
    /// Key in one answer. A request within the supply's own limits but above this one is refused.
    pub answer_key_bytes: u64,
}

impl Limits {
    pub(super) fn of_door(&self) -> shell::tls::Limits {
        let Self { first_byte, handshake, handshakes, connections, .. } = *self;
        shell::tls::Limits { first_byte, handshake, handshakes, connections }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_sae: 256,
            // More than come within the time that a silent one gets, so that a real one seldom has to be quick to stay.
            handshakes: 8192,
            first_byte: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            answer: Duration::from_secs(15),
            write: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            head_bytes: 16 << 10,
            body_bytes: 64 << 10,
            key_ids: 1024,
            answer_key_bytes: 4 << 20,
        }
    }
}
