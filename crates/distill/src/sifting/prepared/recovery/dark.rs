//! What a session does that cannot number the light to come: it waits for it.
//!
//! A session that was dark through its preamble, or later for longer than its clock can bridge, has nothing by which
//! pulses could be numbered. It stays, however long the darkness is: no clicks are used. Once clicks gather at the
//! period of the pulses again it ends, and the next one begins with a preamble that is seen. So a darkness costs one
//! session.

use super::fold::{self, Click, Fold};
use super::{Frame, RecoveryError};
use crate::sifting::prepared::config::{Prepared, Search};

pub(super) struct Dark {
    /// What the session ends with once there is light.
    pub why: RecoveryError,
    /// The stretch that is looked at: as long as the preamble, which has to be enough to lock on.
    begin_ps: u64,
    clicks: Vec<Click>,
}

impl Dark {
    pub fn new(why: RecoveryError, begin_ps: u64) -> Self {
        Self { why, begin_ps, clicks: Vec::new() }
    }

    /// Takes a frame's clicks; whether there was light in the stretch that ends with them.
    pub fn ends(&mut self, frame: &Frame, fold: &Fold, config: &Prepared, search: &Search) -> bool {
        if frame.start_ps < self.begin_ps {
            return false;
        }
        self.clicks.extend(frame.clicks());
        if frame.end_ps < self.begin_ps.saturating_add(config.preamble_ps()) {
            return false;
        }
        let lit = fold::acquire(fold, &self.clicks, config.period_ps, search.frequency).is_some();
        self.clicks.clear();
        self.begin_ps = frame.end_ps;
        lit
    }
}
