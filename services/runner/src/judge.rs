//! What the states in which a run ends mean for its verdict, and whether it can still come to something.

use std::collections::BTreeMap;

use proto::anchor::v1::RolledBack;
use proto::detector::v1::LinkState as WireState;
use proto::kms::v1::GetStatusResponse;

use super::End;
use super::verdict::{Kind, Reason};
use super::watch::LinkReport;

/// Whether what is left of a run can still make key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    No,
    /// Not by itself, but somebody may help while it runs.
    UntilHelped,
    /// Not in this run.
    ForGood,
}

/// A link with an end that no session can help is stuck; the run is, once every other link has ended.
pub fn stuck(ends: &[End]) -> Stuck {
    let lasting = |state: WireState| match state {
        WireState::RolledBack | WireState::PeerVersion => Some(Stuck::ForGood),
        WireState::AuthenticationExhausted | WireState::ReservesDiffer => Some(Stuck::UntilHelped),
        _ => None,
    };
    let states: Vec<(&str, WireState)> = ends.iter().map(|end| (end.link.as_str(), end.monitor.state())).collect();
    let links: BTreeMap<&str, Stuck> =
        states.iter().filter_map(|(link, state)| Some((*link, lasting(*state)?))).collect();
    if links.is_empty() || !states.iter().all(|(link, state)| *state == WireState::Ended || links.contains_key(link)) {
        return Stuck::No;
    }
    if links.values().all(|stuck| *stuck == Stuck::ForGood) { Stuck::ForGood } else { Stuck::UntilHelped }
}

/// The state in which an end came to rest, where nothing but a person brings it out of it.
pub fn lasting(end: &End) -> Option<Reason> {
    let status = end.monitor.status();
    let (kind, message, hint) = match status.state() {
        WireState::RolledBack => return Some(rolled_back(status.rolled_back.as_ref(), &end.site).on(&end.link)),
        WireState::PeerVersion => {
            (Kind::PeerVersion, "the two ends speak different versions", "bring both ends to the same version")
        }
        WireState::ReservesDiffer => {
            let message = format!("the authentication reserves of the two ends differ: {}", status.reserves_differ);
            let hint = "give both ends the same fresh secret with `qkdnet rekey`, or make data that were put back safe \
                        with `qkdnet restore`";
            return Some(Reason::of_link(Kind::ReservesDiffer, &end.link, message).at(&end.site).hint(hint));
        }
        WireState::AuthenticationExhausted => (
            Kind::AuthenticationExhausted,
            "the authentication reserve is exhausted",
            "give both ends the same fresh secret with `qkdnet rekey`",
        ),
        _ => return None,
    };
    Some(Reason::of_link(kind, &end.link, message).at(&end.site).hint(hint))
}

fn rolled_back(told: Option<&RolledBack>, site: &str) -> Reason {
    let told = told.cloned().unwrap_or_default();
    let what = if told.store.is_empty() { "a volume" } else { &told.store };
    let message = format!("{what} was put back to an earlier state: {}", told.message);
    let site = if told.site.is_empty() { site } else { &told.site };
    let reason = Reason::new(Kind::RolledBack, message.trim_end_matches([':', ' '])).at(site);
    // Most say themselves what to do.
    if told.message.contains("qkdnet restore") {
        return reason;
    }
    reason.hint("void what may have been used with `qkdnet restore`")
}

/// Pools of a key store that have no dialogue until somebody does something: a volume was put back, or the peer's key store
/// is of another version.
pub fn lasting_pools(status: &GetStatusResponse) -> Vec<Reason> {
    let told = status.pools.iter().filter_map(|pool| pool.rolled_back.as_ref());
    let put_back = told.map(|told| rolled_back(Some(told), &status.site));
    let apart = status.pools.iter().filter(|pool| !pool.peer_version.is_empty()).map(|pool| {
        let message = format!("no key is shared with {}: {}", pool.site, pool.peer_version);
        Reason::new(Kind::PeerVersion, message).at(&status.site)
    });
    put_back.chain(apart).collect()
}

/// A relay whose volume was put back.
pub fn relay_put_back(told: &RolledBack) -> Reason {
    let message = format!("{} was put back to an earlier state: {}", told.store, told.message);
    let hint = "nothing has to be done: the relay goes on. What `qkdnet exposure` lists may lack its latest transfers";
    Reason::new(Kind::RolledBack, message).at(&told.site).hint(hint)
}

/// Light without key on any link is no success, however orderly the end.
pub fn no_key(ends: &[End], links: &[LinkReport]) -> Option<Reason> {
    let blocks: u64 = links.iter().map(|link| link.status.blocks.max(link.block_bits.len() as u64)).sum();
    let clicks: u64 = ends.iter().map(|end| end.monitor.status().clicks).sum();
    if blocks > 0 || clicks == 0 {
        return None;
    }
    let message = format!("no link made key, though there was light: {clicks} clicks");
    Some(Reason::new(Kind::NoKey, message).hint("`qkdnet plan` says what is to be expected, and how long a round is"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use module::Monitor;
    use proto::detector::v1::ModuleStatus;
    use proto::kms::v1::PoolStatus;

    use super::*;

    fn end(link: &str, site: &str, state: WireState) -> End {
        let monitor = Arc::new(Monitor::new(ModuleStatus::default()));
        monitor.enter(state);
        End { link: link.to_owned(), site: site.to_owned(), corrects: true, monitor }
    }

    fn told() -> RolledBack {
        let (store, message) = ("authentication reserve of a-b".to_owned(), "the peer has used tag 90".to_owned());
        RolledBack { site: "a".to_owned(), store, since_ms: 1, message }
    }

    #[test]
    fn each_state_that_lasts_is_a_reason_with_what_to_do() {
        let states = [
            (WireState::RolledBack, Kind::RolledBack, "qkdnet restore"),
            (WireState::PeerVersion, Kind::PeerVersion, "same version"),
            (WireState::ReservesDiffer, Kind::ReservesDiffer, "qkdnet rekey"),
            (WireState::AuthenticationExhausted, Kind::AuthenticationExhausted, "qkdnet rekey"),
        ];
        for (state, kind, what) in states {
            let reason = lasting(&end("a-b", "b", state)).unwrap();
            assert_eq!((reason.kind, reason.link.as_deref()), (kind, Some("a-b")));
            assert!(reason.hint.unwrap().contains(what));
        }
        for state in [WireState::Connecting, WireState::Acquiring, WireState::Locked, WireState::Ended] {
            assert_eq!(lasting(&end("a-b", "b", state)), None);
        }
    }

    #[test]
    fn a_volume_that_was_put_back_is_named_with_its_site() {
        let end = end("a-b", "b", WireState::RolledBack);
        end.monitor.update(|status| status.rolled_back = Some(told()));
        let line = lasting(&end).unwrap().line();
        let expected =
            "a-b a: authentication reserve of a-b was put back to an earlier state: the peer has used tag 90";
        assert_eq!(line, expected);
        let pools = vec![PoolStatus { rolled_back: Some(told()), ..PoolStatus::default() }, PoolStatus::default()];
        let reasons = lasting_pools(&GetStatusResponse { pools, ..GetStatusResponse::default() });
        assert_eq!(reasons.iter().map(|reason| reason.kind).collect::<Vec<_>>(), [Kind::RolledBack]);
    }

    #[test]
    fn what_to_do_about_a_volume_is_said_once() {
        let told = |message: &str| RolledBack { message: message.to_owned(), ..told() };
        let hint = |message: &str| rolled_back(Some(&told(message)), "a").hint;
        assert_eq!(hint("it is behind. `qkdnet restore` makes it safe"), None);
        assert!(hint("it is behind").unwrap().contains("qkdnet restore"));
    }

    #[test]
    fn key_stores_of_different_versions_are_a_reason_with_both_sites() {
        let pool =
            PoolStatus { site: "b".to_owned(), peer_version: "it speaks version 7".to_owned(), ..Default::default() };
        let status = GetStatusResponse { site: "a".to_owned(), pools: vec![pool], ..Default::default() };
        let reasons = lasting_pools(&status);
        assert_eq!((reasons.len(), reasons[0].kind), (1, Kind::PeerVersion));
        assert_eq!(reasons[0].line(), "a: no key is shared with b: it speaks version 7");
    }

    #[test]
    fn a_run_is_stuck_once_no_link_that_is_left_can_go_on() {
        use WireState::{AuthenticationExhausted, Connecting, Ended, Locked, RolledBack};
        let ends = |states: &[(&str, WireState)]| -> Vec<End> {
            states.iter().map(|(link, state)| end(link, "a", *state)).collect()
        };
        // The other end of such a link only waits.
        let back = ends(&[("a-b", RolledBack), ("a-b", Connecting), ("b-c", Ended), ("b-c", Ended)]);
        assert_eq!(stuck(&back), Stuck::ForGood);
        let busy = ends(&[("a-b", RolledBack), ("a-b", Connecting), ("b-c", Locked), ("b-c", Locked)]);
        assert_eq!(stuck(&busy), Stuck::No);
        assert_eq!(stuck(&ends(&[("a-b", AuthenticationExhausted), ("a-b", Connecting)])), Stuck::UntilHelped);
        assert_eq!(stuck(&ends(&[("a-b", Connecting), ("a-b", Connecting)])), Stuck::No);
    }

    #[test]
    fn light_without_key_is_a_reason_and_no_light_is_none() {
        let end = end("a-b", "a", WireState::Ended);
        let report = LinkReport::default();
        assert_eq!(no_key(std::slice::from_ref(&end), std::slice::from_ref(&report)), None);
        end.monitor.update(|status| status.clicks = 12_345);
        let reason = no_key(std::slice::from_ref(&end), std::slice::from_ref(&report)).unwrap();
        assert!(reason.kind == Kind::NoKey && reason.message.contains("12345 clicks"), "{reason:?}");
        let stored = LinkReport { block_bits: vec![100.0], ..LinkReport::default() };
        assert_eq!(no_key(&[end], &[stored]), None);
    }
}
