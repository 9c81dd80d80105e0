//! Faults that are brought into a running service, for tests and exercises; only where the topology allows them.
//!
//! Each service has one [`Desk`]: it takes orders (`qkdnet.fault.v1`), knows what is wrong now, and tells whoever
//! watches. The service asks it at the places where something can go wrong: whether its disk is full ([`Disk`]), whether
//! a site is out of reach ([`Desk::reach`]), what light and clocks suffer in an epoch ([`Desk::enter_epoch`]).
//!
//! Light and steps of a clock go by simulated time and begin with an epoch, so that a scheduled one is input of the run
//! like a seed. Everything else goes by wall time. What goes by wall time outlives the process, as a real fault would.

mod check;
mod desk;
mod partition;
mod serve;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::path::PathBuf;

use proto::fault::v1::Fault;

pub use check::Refusal;
pub use desk::{ClockShift, Desk, Effects};
pub use partition::dial;
pub use serve::{FaultService, clear_records};

pub use crate::disk::Disk;

/// What a service is, as far as it decides which faults it can suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Source,
    Detector,
    Transmitter,
    Channel,
    Kms,
    Relay,
    Pacer,
}

/// Which service a desk belongs to.
#[derive(Clone, Debug)]
pub struct Place {
    pub service: String,
    pub site: String,
    /// Empty where the service is part of no link.
    pub link: String,
    pub kind: Kind,
    /// 0 where the service knows no simulated time.
    pub epoch_ps: u64,
    /// Whether its local clock is simulated, so that a step of it would be noticed.
    pub has_clock: bool,
    /// Where faults are kept that outlive the process. Without it a crash is the business of whoever runs the service
    /// as a task: see [`Desk::crashed`].
    pub record: Option<PathBuf>,
}

impl Place {
    /// A service that runs as a task.
    pub fn new(service: &str, site: &str, link: &str, kind: Kind, epoch_ps: u64) -> Self {
        let (service, site, link) = (service.to_owned(), site.to_owned(), link.to_owned());
        Self { service, site, link, kind, epoch_ps, has_clock: kind == Kind::Detector, record: None }
    }

    pub fn with_clock(self, has_clock: bool) -> Self {
        Self { has_clock, ..self }
    }
}

/// An order, checked or not.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: String,
    pub fault: Fault,
    pub description: String,
    /// 0: at once.
    pub at_ps: u64,
    /// 0: until it is cleared.
    pub duration_ps: u64,
}

/// Most faults of one service at a time.
pub const FAULTS_MAX: usize = 64;
/// Longest duration of a fault, and latest time that one can be scheduled for: 53 days.
pub const TIME_MAX_PS: u64 = 1 << 62;
/// Most loss that can be added; more is a cut.
pub const LOSS_MAX_DB: f64 = 100.0;
/// Shortest step of a clock: less is noise.
const CLOCK_STEP_MIN_PS: u64 = 1000;
/// Most frames that one attack strikes, and the longest delay.
pub const FRAMES_MAX: u32 = 1_000_000;
pub const DELAY_MAX_MS: u32 = 60_000;
const ID_CHARS: usize = 40;
const DESCRIPTION_CHARS: usize = 200;
