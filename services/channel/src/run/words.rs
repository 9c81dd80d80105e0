//! What a module is told.

use distill::auth::{Action, CloseReason, Misfit, Whose};
use proto::anchor::v1::RolledBack;
use proto::channel::v1 as message;
use proto::channel::v1::{ChannelMessage, ReserveReplaced, ReservesDiffer, channel_message};

use super::Task;
use crate::reserve;

impl Task {
    /// What is told of a volume that was put back.
    pub(super) fn rolled_back(&self, whose: Whose) -> RolledBack {
        const WAY_OUT: &str = "Give both ends the same fresh secret with `qkdnet rekey`, or stop the network and void \
                               what may have been used with `qkdnet restore`";
        let (site, since_ms, message) = match (whose, self.endpoint.reserve().rolled_back()) {
            (Whose::Own, Some(own)) => (&self.site, own.since_ms, format!("{}. {WAY_OUT}", own.why)),
            (Whose::Own, None) => (&self.site, reserve::now_ms(), WAY_OUT.to_owned()),
            (Whose::Peer, _) => {
                let known = self.handle.status.figures().rolled_back.filter(|known| known.site == self.peer_site);
                let since_ms = known.map_or_else(reserve::now_ms, |known| known.since_ms);
                (&self.peer_site, since_ms, format!("its end counts less than it had shown here before. {WAY_OUT}"))
            }
        };
        RolledBack { site: site.clone(), store: format!("authentication reserve of {}", self.link), since_ms, message }
    }
}

/// The message that tells the module.
pub fn to_module(action: Action, reserve_tags: u64) -> Option<ChannelMessage> {
    let message = match action {
        Action::Opened { session, peer_hello } => {
            channel_message::Message::Opened(message::Opened { session, peer_hello, reserve_tags })
        }
        Action::Delivered { step, payload, authenticated } => {
            channel_message::Message::Delivered(message::Delivered { step, payload, authenticated, reserve_tags })
        }
        Action::Refilled { block } => channel_message::Message::Refilled(message::Refilled { block }),
        Action::Send(_) | Action::Unfit(_) | Action::Refused(_) | Action::Failed(_) | Action::Closed(_) => return None,
    };
    Some(ChannelMessage { message: Some(message) })
}

pub fn reserve_replaced(replaced: ReserveReplaced) -> ChannelMessage {
    ChannelMessage { message: Some(channel_message::Message::ReserveReplaced(replaced)) }
}

pub fn reserves_differ(misfit: Misfit) -> ChannelMessage {
    let message = channel_message::Message::ReservesDiffer(ReservesDiffer { message: misfit.to_string() });
    ChannelMessage { message: Some(message) }
}

pub fn closed(reason: CloseReason, why: &str, rolled_back: Option<RolledBack>) -> ChannelMessage {
    let reason = match reason {
        CloseReason::PeerLeft => message::CloseReason::PeerLeft,
        CloseReason::TagMismatch => message::CloseReason::TagMismatch,
        CloseReason::ReserveExhausted => message::CloseReason::ReserveExhausted,
        CloseReason::PeerRestarted => message::CloseReason::PeerRestarted,
        CloseReason::ReserveFailed => message::CloseReason::ReserveFailed,
        CloseReason::Rekeyed => message::CloseReason::Rekeyed,
        CloseReason::RolledBack(_) => message::CloseReason::RolledBack,
        CloseReason::PeerVersion => message::CloseReason::PeerVersion,
    };
    let closed = message::Closed { reason: reason.into(), message: why.to_owned(), rolled_back };
    ChannelMessage { message: Some(channel_message::Message::Closed(closed)) }
}
