//! What a server has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

use shell::tls::Refusal;

use super::route::Route;

/// Status codes that answers have.
const STATUSES: [u16; 13] = [200, 204, 400, 401, 404, 405, 408, 413, 414, 417, 431, 503, 505];

/// Counts of one server. Only ever grow.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [[AtomicU64; STATUSES.len()]; Route::ALL.len()],
    keys: AtomicU64,
    handshakes_full: AtomicU64,
    handshakes_resumed: AtomicU64,
    refused: [AtomicU64; 3],
}

/// How often a route was answered with a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestCount {
    pub route: Route,
    pub status: u16,
    pub count: u64,
}

/// The [`Counters`] of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that are not 0. Messages that are no requests count under [`Route::Other`].
    pub requests: Vec<RequestCount>,
    /// Keys handed out, by either method.
    pub keys: u64,
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
    pub refused_handshake: u64,
    pub refused_timed_out: u64,
    pub refused_overload: u64,
}

impl Counts {
    /// Requests with this route and status.
    pub fn requests(&self, route: Route, status: u16) -> u64 {
        let of = |count: &&RequestCount| count.route == route && count.status == status;
        self.requests.iter().find(of).map_or(0, |count| count.count)
    }
}

impl Counters {
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut requests = vec![];
        for (route, row) in Route::ALL.into_iter().zip(&self.requests) {
            for (status, count) in STATUSES.into_iter().zip(row) {
                let count = read(count);
                if count > 0 {
                    requests.push(RequestCount { route, status, count });
                }
            }
        }
        Counts {
            requests,
            keys: read(&self.keys),
            handshakes_full: read(&self.handshakes_full),
            handshakes_resumed: read(&self.handshakes_resumed),
            refused_handshake: read(&self.refused[Refusal::Handshake as usize]),
            refused_timed_out: read(&self.refused[Refusal::TimedOut as usize]),
            refused_overload: read(&self.refused[Refusal::Overload as usize]),
        }
    }

    pub(super) fn request(&self, route: Route, status: u16) {
        let row = &self.requests[route as usize];
        if let Some(index) = STATUSES.iter().position(|known| *known == status) {
            row[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn keys(&self, count: usize) {
        self.keys.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn handshake(&self, resumed: bool) {
        let count = if resumed { &self.handshakes_resumed } else { &self.handshakes_full };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many there were of this kind.
    pub(super) fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed) + 1
    }
}
