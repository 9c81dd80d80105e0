//! Who of two ends that count differently has to prove what, and whose volume was put back.
//!
//! A tag is on its sender's disk as used before it leaves, and counts at its receiver once it has verified. So a
//! receiver is never ahead of the sender, whatever crashed and whatever was forged: where it is, the sender's volume is
//! older than what was done with it. A sender is ahead of the receiver after a tag was lost on the way, a crash between
//! disk and line, or a restart that went on from an anchored ceiling; these are small, and the two meet without help.
//!
//! What a greeting says is a suspicion until its sender has *proved* it: by one tag over both greetings, under its next
//! pad, once for each pair of nonces. Nothing is taken, written or told on a suspicion. For an end A:
//!
//! | what the greetings say | who proves | then |
//! | --- | --- | --- |
//! | A's next send = the peer's receive | nobody | the session begins there |
//! | A's next send > the peer's receive | A | the peer goes on behind A's proof |
//! | A's next send < the peer's receive | the peer; A makes no tag: its pad may be used | A stays rolled back |
//! | the peer's next send > A's receive | the peer | A goes on behind the peer's proof |
//! | the peer's next send < A's receive | A, so that the peer learns it | the peer is rolled back |
//!
//! The first three rows are about one direction, the last two and the first, mirrored, about the other; both directions
//! are judged at each meeting. Both ends say the same site: the one behind by the proof that it verified, the one ahead
//! by the greeting of the other, which answers a fresh nonce and is checked under the key of the masks (see
//! [`super::mask`]). An end that is rolled back has no pad to prove anything with. If it lacks the refills too that the
//! proof's pad came with, or more refills than an end remembers, a check under that key is enough: to say so and stop
//! is always safe.
//!
//! Reserves of an older release have no such key, and their receivers counted forgeries as well. Their ends go on
//! behind a proof of up to [`OLD_FORM_LEAD`] tags, and are rolled back beyond that.
//!
//! Where each end claims that the other is behind, neither has a pad to prove anything with, and where the two have
//! different secrets nothing proves anything. This, and an end of the older form that is behind, is told as a suspicion
//! (`auth::misfit`): nothing is spent, and both go on greeting.

/// Largest lead of a receiver over its sender that older releases explain by forgeries and crashes.
pub const OLD_FORM_LEAD: u64 = 1 << 6;

/// Next tag to send, and the tag behind the last one that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub send: u64,
    pub receive: u64,
}

/// How two ends stand to each other, as one of them sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub own: Counts,
    pub peer: Counts,
}

impl Standing {
    /// The peer has verified tags that this end does not know to have sent.
    pub fn own_is_behind(&self) -> bool {
        self.peer.receive > self.own.send
    }

    /// This end has verified tags that the peer does not know to have sent.
    pub fn peer_is_behind(&self) -> bool {
        self.own.receive > self.peer.send
    }

    pub fn own_proves(&self) -> bool {
        !self.own_is_behind() && (self.own.send > self.peer.receive || self.peer_is_behind())
    }

    pub fn peer_proves(&self) -> bool {
        !self.peer_is_behind() && (self.peer.send > self.own.receive || self.own_is_behind())
    }

    /// How far the peer's receiver is ahead of this end's sender.
    pub fn own_lag(&self) -> u64 {
        self.peer.receive.saturating_sub(self.own.send)
    }

    /// How far this end's receiver is ahead of the peer's sender.
    pub fn peer_lag(&self) -> u64 {
        self.own.receive.saturating_sub(self.peer.send)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_see_the_same_and_an_end_that_is_behind_proves_nothing() {
        let counts = |send, receive| Counts { send, receive };
        for (a_send, a_receive, b_send, b_receive) in (0..81).map(|n| (n % 3, n / 3 % 3, n / 9 % 3, n / 27)) {
            let a = Standing { own: counts(a_send, a_receive), peer: counts(b_send, b_receive) };
            let b = Standing { own: a.peer, peer: a.own };
            assert_eq!((a.own_is_behind(), a.peer_is_behind()), (b.peer_is_behind(), b.own_is_behind()));
            assert_eq!((a.own_proves(), a.peer_proves()), (b.peer_proves(), b.own_proves()));
            assert!(!(a.own_is_behind() && a.own_proves()));
            let level = a_send == b_receive && b_send == a_receive;
            let stuck = a.own_is_behind() && a.peer_is_behind();
            assert_eq!(a.own_proves() || a.peer_proves(), !level && !stuck, "{a:?}");
        }
    }
}
