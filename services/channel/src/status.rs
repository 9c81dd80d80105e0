//! What an endpoint tells about itself.

use std::sync::Mutex;

use distill::auth::{Endpoint, Reserve};
use proto::anchor::v1::RolledBack;
use proto::channel::v1::{GetStatusResponse, ReserveReplaced};

/// The latest figures of one endpoint.
#[derive(Debug, Default)]
pub struct Status {
    figures: Mutex<GetStatusResponse>,
}

impl Status {
    pub(crate) fn new(link: &str) -> Self {
        Self { figures: Mutex::new(GetStatusResponse { link: link.to_owned(), ..GetStatusResponse::default() }) }
    }

    pub fn figures(&self) -> GetStatusResponse {
        self.lock().clone()
    }

    /// Takes over what the state machine counts.
    pub(crate) fn update<R: Reserve>(&self, endpoint: &Endpoint<R>) {
        let counters = endpoint.counters();
        let mut figures = self.lock();
        figures.session = endpoint.session().unwrap_or(0);
        figures.reserve_tags_send = endpoint.reserve().remaining_send();
        figures.reserve_tags_receive = endpoint.reserve().remaining_receive();
        figures.frames_refused = counters.refused();
        figures.tags_mismatched = counters.tags_mismatched + counters.tag_numbers_wrong;
        figures.tags_verified = counters.tags_verified;
        figures.exhausted = endpoint.remaining() == 0;
        if figures.session != 0 {
            figures.rolled_back = None;
            figures.reserves_differ.clear();
        }
    }

    /// A volume of one of the two ends was put back; nothing once that was mended.
    pub(crate) fn rolled_back(&self, rolled_back: Option<RolledBack>) {
        self.lock().rolled_back = rolled_back;
    }

    /// Why the two ends' reserves seem not to fit together; until a session opens, or the reserve is replaced.
    pub(crate) fn reserves_differ(&self, why: String) {
        self.lock().reserves_differ = why;
    }

    pub(crate) fn replaced(&self, replaced: ReserveReplaced) {
        let mut figures = self.lock();
        figures.reserve_replaced = Some(replaced);
        figures.reserves_differ.clear();
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.lock().bytes_sent += bytes as u64;
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.lock().bytes_received += bytes as u64;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, GetStatusResponse> {
        // Plain figures: whoever panicked while holding them left nothing half done that matters.
        self.figures.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
