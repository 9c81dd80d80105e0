//! What is known of a neighbour and of the pool shared with it.

use crate::message::LinkReport;
use crate::name::SiteName;
use crate::settings::Settings;

/// What the service tells about a neighbour: whether its relay can be reached, and the pool as the KMS sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourState {
    pub connected: bool,
    /// Pad for sending to it, for receiving from it: bytes.
    pub stored_bytes_out: u64,
    pub stored_bytes_in: u64,
    /// Key that the link makes, bit/s.
    pub rate_bps: u64,
}

/// An allowance that grows with time up to a limit.
#[derive(Default)]
struct Allowance {
    /// In thousandths, so that a slow one grows between any two looks.
    thousandths: u64,
    at_ms: u64,
}

impl Allowance {
    fn grow(&mut self, now_ms: u64, per_s: u64, most: u64) {
        let grown = now_ms.saturating_sub(self.at_ms).saturating_mul(per_s);
        self.thousandths = self.thousandths.saturating_add(grown).min(most.saturating_mul(1000));
        self.at_ms = now_ms;
    }

    fn holds(&self, units: u64) -> bool {
        self.thousandths >= units.saturating_mul(1000)
    }

    fn take(&mut self, units: u64) {
        self.thousandths = self.thousandths.saturating_sub(units.saturating_mul(1000));
    }
}

pub(super) struct Neighbour {
    pub(super) state: NeighbourState,
    /// What the relay may take while the pool starves, bytes.
    pad: Allowance,
    link_states: Allowance,
}

impl Neighbour {
    pub(super) fn new(now_ms: u64, settings: &Settings) -> Self {
        let full = Allowance { thousandths: settings.link_states_burst.saturating_mul(1000), at_ms: now_ms };
        Self { state: NeighbourState::default(), pad: Allowance { thousandths: 0, at_ms: now_ms }, link_states: full }
    }

    pub(super) fn report(&self, site: &SiteName) -> LinkReport {
        LinkReport {
            neighbour: site.clone(),
            stored_bytes: self.state.stored_bytes_out,
            rate_bps: self.state.rate_bps,
            up: self.state.connected,
        }
    }

    pub(super) fn update(&mut self, now_ms: u64, state: NeighbourState, settings: &Settings) {
        self.grow(now_ms, settings);
        self.state = state;
    }

    fn grow(&mut self, now_ms: u64, settings: &Settings) {
        let per_s = (self.state.rate_bps / 8).saturating_mul(settings.scarce_share_percent) / 100;
        self.pad.grow(now_ms, per_s, settings.scarce_bytes.max(u64::from(settings.chunk_bytes)));
    }

    /// Whether the relay may draw so much pad for one transfer: a reserve stays for others, and from a pool that
    /// starves it takes no more than its share of what the link makes.
    pub(super) fn allows(&mut self, now_ms: u64, bytes: u32, settings: &Settings) -> bool {
        self.grow(now_ms, settings);
        let needed = settings.reserve_bytes.saturating_add(u64::from(bytes));
        let stored = self.state.stored_bytes_out;
        stored >= needed && (stored >= settings.scarce_bytes || self.pad.holds(u64::from(bytes)))
    }

    pub(super) fn take_if_allowed(&mut self, now_ms: u64, bytes: u32, settings: &Settings) -> bool {
        let allowed = self.allows(now_ms, bytes, settings);
        if allowed {
            self.take(bytes);
        }
        allowed
    }

    /// Notes what was drawn until the service tells the level again.
    pub(super) fn take(&mut self, bytes: u32) {
        let bytes = u64::from(bytes);
        self.state.stored_bytes_out = self.state.stored_bytes_out.saturating_sub(bytes);
        self.pad.take(bytes);
    }

    /// Whether one more link state of it is looked at.
    pub(super) fn takes_link_state(&mut self, now_ms: u64, settings: &Settings) -> bool {
        self.link_states.grow(now_ms, settings.link_states_per_s, settings.link_states_burst);
        let holds = self.link_states.holds(1);
        self.link_states.take(1);
        holds
    }
}
