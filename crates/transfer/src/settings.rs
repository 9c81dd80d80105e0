//! Limits and times of a relay. Every queue, table and wait has one.

use crate::message::TRANSFER_BYTES_MAX;

/// What may be configured. The defaults suit links of 1 kbit/s to 10 Mbit/s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Size of the transfers that fill a level, at most [`TRANSFER_BYTES_MAX`].
    pub chunk_bytes: u32,
    /// Keys on their way per target.
    pub window: usize,
    /// Keys on their way from this site, over all targets.
    pub outgoing_max: usize,
    /// Shares on their way from this site over one first hop.
    pub outgoing_per_neighbour_max: usize,
    /// Voids that are repeated until confirmed; beyond it the oldest is given up (its key stays void here).
    pub voiding_max: usize,
    /// Released keys whose path has not confirmed it; beyond it no new key is begun.
    pub settling_max: usize,
    /// Transfers of other origins known here, and those that came from one neighbour.
    pub incoming_max: usize,
    pub incoming_per_neighbour_max: usize,
    pub neighbours_max: usize,
    pub targets_max: usize,
    /// Sites in the link-state database.
    pub sites_max: usize,

    /// Of each hop's pool the relay leaves so much to others.
    pub reserve_bytes: u64,
    /// A pool below this starves: the relay takes at most `scarce_share_percent` of what the link makes.
    pub scarce_bytes: u64,
    pub scarce_share_percent: u64,

    /// First wait for an answer; doubles with every repetition up to `retry_max_ms`.
    pub retry_ms: u64,
    pub retry_max_ms: u64,
    /// After this a key without an answer is void.
    pub doubt_ms: u64,
    /// First pause of a target after a failure; doubles up to `backoff_max_ms`, ends with a success.
    pub backoff_ms: u64,
    pub backoff_max_ms: u64,
    /// How long a target without a path waits for the next look, unless the network changes.
    pub no_path_ms: u64,
    /// How long a link that failed a transfer is avoided where there is another way.
    pub suspect_ms: u64,
    /// How long the KMS is not asked the same again.
    pub kms_busy_ms: u64,
    /// How long a refused or void transfer is remembered, so that a late message of it is not carried.
    pub linger_ms: u64,
    /// How long a site between remembers a transfer without news.
    pub keep_ms: u64,
    /// How long a target asks what became of a share, and an origin repeats that a key was released.
    pub inquire_ms: u64,

    /// Own link state is repeated so often; that of others is forgotten after three times as long.
    pub refresh_ms: u64,
    /// Own link state is sent at most so often.
    pub link_state_min_ms: u64,
    /// Link states that a neighbour may send: a burst, and a rate per second.
    pub link_states_burst: u64,
    pub link_states_per_s: u64,
    /// A path in use is left only for one that is cheaper by this much, so that routes do not flap.
    pub hysteresis_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of_chunks(4096)
    }
}

impl Settings {
    /// What is left to others, and what counts as little, follow from the size of the transfers.
    pub fn of_chunks(chunk_bytes: u32) -> Self {
        Self {
            chunk_bytes,
            window: 4,
            outgoing_max: 64,
            outgoing_per_neighbour_max: 32,
            voiding_max: 1024,
            settling_max: 256,
            incoming_max: 2048,
            incoming_per_neighbour_max: 512,
            neighbours_max: 64,
            targets_max: 512,
            sites_max: 512,
            reserve_bytes: 2 * u64::from(chunk_bytes),
            scarce_bytes: 8 * u64::from(chunk_bytes),
            scarce_share_percent: 50,
            retry_ms: 2000,
            retry_max_ms: 60_000,
            doubt_ms: 30_000,
            backoff_ms: 500,
            backoff_max_ms: 30_000,
            no_path_ms: 500,
            suspect_ms: 10_000,
            kms_busy_ms: 1000,
            linger_ms: 600_000,
            keep_ms: 3_600_000,
            inquire_ms: 7 * 86_400_000,
            refresh_ms: 10_000,
            link_state_min_ms: 500,
            link_states_burst: 1024,
            link_states_per_s: 256,
            hysteresis_percent: 20,
        }
    }

    /// Values outside what the protocol allows, or that would stop it, are moved to the nearest that does not.
    pub(crate) fn bounded(mut self) -> Self {
        self.chunk_bytes = self.chunk_bytes.clamp(1, TRANSFER_BYTES_MAX);
        self.neighbours_max = self.neighbours_max.clamp(1, crate::message::LINKS_MAX);
        self.scarce_share_percent = self.scarce_share_percent.min(100);
        self.hysteresis_percent = self.hysteresis_percent.min(100);
        for wait in [
            &mut self.retry_ms,
            &mut self.retry_max_ms,
            &mut self.backoff_ms,
            &mut self.no_path_ms,
            &mut self.refresh_ms,
            &mut self.link_state_min_ms,
            &mut self.kms_busy_ms,
        ] {
            *wait = (*wait).max(1);
        }
        self
    }

    /// The wait before the next repetition after this many.
    pub(crate) fn retry_after_ms(&self, attempts: u32) -> u64 {
        doubled(self.retry_ms, attempts, self.retry_max_ms)
    }

    /// The pause of a target after this many failures.
    pub(crate) fn backoff_after_ms(&self, failures: u32) -> u64 {
        doubled(self.backoff_ms, failures.saturating_sub(1), self.backoff_max_ms)
    }
}

fn doubled(first_ms: u64, times: u32, most_ms: u64) -> u64 {
    first_ms.saturating_mul(1_u64.checked_shl(times).unwrap_or(u64::MAX)).min(most_ms.max(first_ms))
}
