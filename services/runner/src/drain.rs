//! When a network that was asked to finish what is under way has done so.

use std::time::{Duration, Instant};

use proto::detector::v1::LinkState;

use super::End;

/// A run that is drained waits so long for links that have no session, and so no block under way either.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// And for one whose links have a session and come no further. A step of a large block takes less.
const STALL_PATIENCE: Duration = Duration::from_secs(60);

/// How a network comes to its end that was asked to finish what is under way.
pub struct Drain {
    /// A link had a session.
    busy: Instant,
    /// A link came further, and how far all have come: simulated seconds, and blocks with key or without.
    moved: Instant,
    reached: (f64, u64),
}

impl Drain {
    pub fn new(now: Instant) -> Self {
        Self { busy: now, moved: now, reached: (0.0, 0) }
    }

    /// Why there is nothing more to wait for, if so.
    pub fn look(&mut self, now: Instant, ends: &[End], draining: bool, for_good: bool) -> Option<&'static str> {
        let under_way = ends.iter().any(under_way);
        if !draining || under_way {
            self.busy = now;
        }
        let reached = ends
            .iter()
            .map(|end| end.monitor.look(|status| (status.simulated_s, status.blocks + status.blocks_aborted)));
        let reached = reached.fold((0.0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        if !draining || reached != self.reached {
            (self.moved, self.reached) = (now, reached);
        }
        if !under_way && (for_good || now - self.busy > DRAIN_PATIENCE) {
            return draining.then_some("the links that are left have no session");
        }
        let stalled = draining && now - self.moved > STALL_PATIENCE;
        stalled.then_some("no link came further for a minute (is a key store full?); blocks that wait for one are kept")
    }
}

/// Whether an end may have a block under way.
fn under_way(end: &End) -> bool {
    matches!(end.monitor.state(), LinkState::Acquiring | LinkState::Locked)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use module::Monitor;
    use proto::detector::v1::ModuleStatus;

    use super::*;

    fn end(state: LinkState) -> End {
        let monitor = Monitor::new(ModuleStatus { state: state.into(), ..ModuleStatus::default() });
        End { link: "a-b".to_owned(), site: "a".to_owned(), corrects: true, monitor: Arc::new(monitor) }
    }

    #[test]
    fn a_link_that_goes_on_is_waited_for_and_one_that_comes_no_further_is_given_up() {
        let (begun, ends) = (Instant::now(), [end(LinkState::Locked)]);
        let mut drain = Drain::new(begun);
        let mut look = |after: Duration, draining: bool| drain.look(begun + after, &ends, draining, false);
        assert_eq!(look(10 * STALL_PATIENCE, false), None, "nobody asked");
        let asked = 10 * STALL_PATIENCE;
        for turn in 1..5 {
            ends[0].monitor.update(|status| status.simulated_s += 1.0);
            assert_eq!(look(asked + turn * STALL_PATIENCE, true), None, "it comes further");
        }
        let stands = asked + 4 * STALL_PATIENCE;
        assert_eq!(look(stands + STALL_PATIENCE, true), None);
        let why = look(stands + STALL_PATIENCE + Duration::from_secs(1), true);
        assert!(why.is_some_and(|why| why.contains("is a key store full?")), "{why:?}");
    }

    #[test]
    fn links_without_a_session_are_waited_for_a_while_and_those_that_cannot_have_one_are_not() {
        let (begun, ends) = (Instant::now(), [end(LinkState::Connecting)]);
        let mut drain = Drain::new(begun);
        assert_eq!(drain.look(begun + DRAIN_PATIENCE, &ends, true, false), None);
        let late = begun + DRAIN_PATIENCE + Duration::from_secs(1);
        assert!(drain.look(late, &ends, true, false).is_some());
        assert!(Drain::new(begun).look(begun, &ends, true, true).is_some(), "for good");
    }
}
