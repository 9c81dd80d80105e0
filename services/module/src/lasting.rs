//! States without a session that last until somebody does something: said once, and asked about slowly.

use std::time::Duration;

use proto::channel::v1::CloseReason;
use proto::detector::v1::LinkState;

use crate::link::SessionClosed;
use crate::status::Monitor;

/// What is said where no tag can be made any more.
const EXHAUSTED: &str = "the authentication reserve is exhausted: nothing is stored until both ends are given the same \
                         fresh secret with `qkdnet rekey`";
const PEER_VERSION: &str = "the peer's channel speaks another version of the protocol: nothing is tried until both ends \
                            are of one version";
const RESERVES_DIFFER: &str = "Nothing is authenticated until both ends are given the same fresh secret with \
                               `qkdnet rekey`, or the data are made safe with `qkdnet restore`";
/// Wait before meeting again where a meeting may cost the peer a tag, or cannot succeed.
const RETRY: Duration = Duration::from_secs(15);

/// Whether a state stays until a session opens, whatever fails meanwhile.
pub fn lasts(state: LinkState) -> bool {
    matches!(
        state,
        LinkState::AuthenticationExhausted | LinkState::RolledBack | LinkState::PeerVersion | LinkState::ReservesDiffer
    )
}

/// How long to wait before the next attempt, where that is longer than elsewhere.
pub fn retry(state: LinkState) -> Option<Duration> {
    matches!(state, LinkState::RolledBack | LinkState::PeerVersion).then_some(RETRY)
}

/// Says that the two ends' reserves seem not to fit together. The channel goes on greeting all the while.
pub fn reserves_differ(monitor: &Monitor, why: String) {
    // A state that was proved says more.
    let is_new = monitor.state() != LinkState::ReservesDiffer || monitor.status().reserves_differ != why;
    if !is_new || (lasts(monitor.state()) && monitor.state() != LinkState::ReservesDiffer) {
        return;
    }
    let said = format!("{why}. {RESERVES_DIFFER}");
    monitor.update(|s| {
        s.state = LinkState::ReservesDiffer.into();
        s.reserves_differ = why;
    });
    monitor.publish();
    monitor.note("reserves-differ", &said);
}

/// Says why there is no session.
pub fn lost(monitor: &Monitor, error: &anyhow::Error, said: &mut String) {
    let closed = error.downcast_ref::<SessionClosed>();
    match closed.and_then(state) {
        Some(state) => {
            let rolled_back = closed.and_then(|closed| closed.rolled_back.clone());
            let is_new = monitor.state() != state || monitor.status().rolled_back != rolled_back;
            if !is_new {
                return;
            }
            let (name, why) = match (state, &rolled_back) {
                (LinkState::AuthenticationExhausted, _) => ("authentication-exhausted", EXHAUSTED.to_owned()),
                (LinkState::PeerVersion, _) => ("peer-version", PEER_VERSION.to_owned()),
                (_, Some(told)) => ("rolled-back", format!("{} at {}: {}", told.store, told.site, told.message)),
                (_, None) => ("rolled-back", shell::chain(error).to_string()),
            };
            monitor.update(|s| {
                s.state = state.into();
                s.rolled_back = rolled_back;
                s.reserves_differ.clear();
            });
            monitor.publish();
            monitor.note(name, &why);
        }
        None if !lasts(monitor.state()) => {
            monitor.enter(LinkState::Connecting);
            // What goes on for long is not said with every attempt.
            let why = shell::chain(error).to_string();
            if *said != why {
                monitor.note("session-lost", &why);
                *said = why;
            }
        }
        None => {}
    }
}

/// The state that the end of a session begins, if it lasts.
fn state(closed: &SessionClosed) -> Option<LinkState> {
    match closed.reason {
        CloseReason::ReserveExhausted => Some(LinkState::AuthenticationExhausted),
        CloseReason::RolledBack => Some(LinkState::RolledBack),
        CloseReason::PeerVersion => Some(LinkState::PeerVersion),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::anchor::v1::RolledBack;
    use proto::channel::v1::Closed;
    use proto::detector::v1::module_event::Event;
    use proto::detector::v1::{ModuleEvent, ModuleStatus};
    use tokio::sync::broadcast::Receiver;

    use super::*;

    fn closed(reason: CloseReason, rolled_back: Option<RolledBack>) -> anyhow::Error {
        let mut closed = Closed { rolled_back, ..Closed::default() };
        closed.set_reason(reason);
        SessionClosed::from(closed).into()
    }

    fn notes(events: &mut Receiver<ModuleEvent>) -> Vec<String> {
        let mut notes = Vec::new();
        while let Ok(event) = events.try_recv() {
            if let Some(Event::Note(note)) = event.event {
                notes.push(note.name);
            }
        }
        notes
    }

    #[test]
    fn reserves_that_differ_are_said_once_until_a_session_opens_or_more_is_known() {
        let monitor = Monitor::new(ModuleStatus::default());
        let mut events = monitor.watch();
        let mut said = String::new();
        for _ in 0..3 {
            reserves_differ(&monitor, "other secrets".to_owned());
            lost(&monitor, &closed(CloseReason::Rekeyed, None), &mut said);
        }
        let (state, why) = (monitor.state(), monitor.status().reserves_differ);
        assert_eq!((state, why.as_str()), (LinkState::ReservesDiffer, "other secrets"));
        assert_eq!(notes(&mut events), ["reserves-differ"]);
        assert_eq!(retry(state), None, "the channel goes on greeting, the module comes back as ever");
        lost(&monitor, &closed(CloseReason::RolledBack, None), &mut said);
        reserves_differ(&monitor, "other secrets".to_owned());
        assert_eq!((monitor.state(), monitor.status().reserves_differ), (LinkState::RolledBack, String::new()));
    }

    #[test]
    fn a_state_that_lasts_is_said_once_with_its_site_and_outlives_other_failures() {
        let monitor = Monitor::new(ModuleStatus::default());
        let mut events = monitor.watch();
        let mut said = String::new();
        let told = RolledBack { site: "sophia".to_owned(), since_ms: 5, ..RolledBack::default() };
        for _ in 0..3 {
            lost(&monitor, &closed(CloseReason::RolledBack, Some(told.clone())), &mut said);
            lost(&monitor, &closed(CloseReason::PeerLeft, None), &mut said);
        }
        assert_eq!((monitor.state(), monitor.status().rolled_back), (LinkState::RolledBack, Some(told)));
        assert_eq!(notes(&mut events), ["rolled-back"]);
        assert!(retry(monitor.state()) > Some(Duration::from_secs(2)));
        // Another state takes its place, and no site stays behind.
        lost(&monitor, &closed(CloseReason::PeerVersion, None), &mut said);
        assert_eq!((monitor.state(), monitor.status().rolled_back), (LinkState::PeerVersion, None));
        lost(&monitor, &closed(CloseReason::ReserveExhausted, None), &mut said);
        assert_eq!(notes(&mut events), ["peer-version", "authentication-exhausted"]);
        monitor.enter(LinkState::Acquiring);
        lost(&monitor, &closed(CloseReason::PeerLeft, None), &mut said);
        assert_eq!(monitor.state(), LinkState::Connecting);
        assert_eq!(notes(&mut events), ["session-lost"]);
    }
}
