//! A module's stream to its channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use distill::pipeline::PeerInput;
use proto::anchor::v1::RolledBack;
use proto::channel::v1::{
    ChannelMessage, CloseReason, Closed, ModuleMessage, Opened, Refill, channel_message, module_message,
};
use shell::duplex::Duplex;

use crate::lasting;
use crate::status::Monitor;

/// Longest wait for a peer, source or channel that is there but says nothing. One that is gone is noticed at once;
/// a machine that is merely slow must not look like it.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The channel has ended the session.
#[derive(Debug, thiserror::Error)]
#[error("the channel is closed: {message}")]
pub struct SessionClosed {
    pub reason: CloseReason,
    message: String,
    /// Whose volume was put back, with that reason.
    pub rolled_back: Option<RolledBack>,
}

impl From<Closed> for SessionClosed {
    fn from(closed: Closed) -> Self {
        Self { reason: closed.reason(), message: closed.message, rolled_back: closed.rolled_back }
    }
}

/// A module's stream to its channel: what arrives while an answer is awaited is kept.
pub struct Link {
    duplex: Duplex<ModuleMessage, ChannelMessage>,
    kept: VecDeque<channel_message::Message>,
    monitor: Arc<Monitor>,
}

impl Link {
    pub fn new(duplex: Duplex<ModuleMessage, ChannelMessage>, monitor: Arc<Monitor>) -> Self {
        Self { duplex, kept: VecDeque::new(), monitor }
    }

    /// What the channel says of the session; what it says beside that is passed on. May be dropped and called again.
    async fn next(&mut self) -> Option<channel_message::Message> {
        loop {
            match self.duplex.rx.recv().await?.message? {
                channel_message::Message::ReserveReplaced(replaced) => self.monitor.reserve_replaced(replaced),
                channel_message::Message::ReservesDiffer(told) => lasting::reserves_differ(&self.monitor, told.message),
                message => return Some(message),
            }
        }
    }

    pub async fn send(&self, message: module_message::Message) -> Result<()> {
        let message = ModuleMessage { message: Some(message) };
        self.duplex.tx.send(message).await.ok().context("speak to the channel: it has gone")
    }

    /// What the channel says once both ends have said open; no limit on the wait, as the peer may start much later.
    pub async fn opened(&mut self) -> Result<Opened> {
        match self.next().await {
            Some(channel_message::Message::Opened(opened)) => Ok(opened),
            Some(channel_message::Message::Closed(closed)) => Err(SessionClosed::from(closed).into()),
            Some(_) => bail!("the channel said something before the session was open"),
            None => bail!("the channel has gone"),
        }
    }

    async fn receive(&mut self) -> Result<channel_message::Message> {
        let message = tokio::time::timeout(PATIENCE, self.next()).await.context("wait for the peer")?;
        message.context("listen to the channel: it has gone")
    }

    /// Hands key to the authentication reserve and waits until it is durable there. A session that the peer ends
    /// meanwhile does not keep it from that; a reserve that fails does.
    pub async fn refill(&mut self, block: u64, key: Vec<u8>) -> Result<()> {
        self.send(module_message::Message::Refill(Refill { block, key: key.into() })).await?;
        loop {
            match self.receive().await? {
                channel_message::Message::Refilled(done) if done.block == block => return Ok(()),
                channel_message::Message::Closed(closed)
                    if matches!(closed.reason(), CloseReason::ReserveFailed | CloseReason::RolledBack) =>
                {
                    return Err(SessionClosed::from(closed).into());
                }
                other => self.kept.push_back(other),
            }
        }
    }

    /// Waits until the channel ends the session; what else it says meanwhile is kept.
    pub async fn ended(&mut self) -> anyhow::Error {
        loop {
            match self.next().await {
                Some(channel_message::Message::Closed(closed)) => return SessionClosed::from(closed).into(),
                Some(other) => self.kept.push_back(other),
                None => return anyhow::anyhow!("listen to the channel: it has gone"),
            }
        }
    }

    /// The peer's bundle of `step`.
    pub async fn delivered(&mut self, step: u64) -> Result<(PeerInput, u64)> {
        let message = match self.kept.pop_front() {
            Some(message) => message,
            None => self.receive().await?,
        };
        match message {
            channel_message::Message::Delivered(d) if d.step == step => {
                Ok((PeerInput { payload: d.payload, authenticated: d.authenticated }, d.reserve_tags))
            }
            channel_message::Message::Delivered(d) => bail!("expected the peer's step {step}, got {}", d.step),
            channel_message::Message::Closed(closed) => Err(SessionClosed::from(closed).into()),
            _ => bail!("the channel said something unexpected"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::channel::v1::{Delivered, Refilled, ReserveReplaced};
    use proto::detector::v1::module_event::Event;
    use proto::detector::v1::{ModuleEvent, ModuleStatus};
    use topology::figure::{Figure, Figures};

    use super::*;

    #[tokio::test]
    async fn an_end_of_the_session_is_noticed_whatever_is_said_before_it() {
        let (module, channel) = Duplex::pair(4);
        let monitor = Arc::new(Monitor::new(ModuleStatus::default()));
        let mut link = Link::new(module, monitor);
        let delivered = channel_message::Message::Delivered(Delivered { step: 0, ..Delivered::default() });
        let mut closed = Closed::default();
        closed.set_reason(CloseReason::PeerLeft);
        for message in [delivered, channel_message::Message::Closed(closed)] {
            channel.tx.send(ChannelMessage { message: Some(message) }).await.unwrap();
        }
        let ended = link.ended().await;
        assert_eq!(ended.downcast_ref::<SessionClosed>().unwrap().reason, CloseReason::PeerLeft);
        link.delivered(0).await.unwrap();
        drop(channel);
        assert!(link.ended().await.to_string().contains("it has gone"));
    }

    #[tokio::test]
    async fn a_refill_outlives_a_session_that_the_peer_ends_and_not_a_reserve_that_fails() {
        let closed = |reason| {
            let mut closed = Closed::default();
            closed.set_reason(reason);
            channel_message::Message::Closed(closed)
        };
        let (module, channel) = Duplex::pair(4);
        let mut link = Link::new(module, Arc::new(Monitor::new(ModuleStatus::default())));
        let refilled = channel_message::Message::Refilled(Refilled { block: 3 });
        for message in [closed(CloseReason::PeerLeft), refilled, closed(CloseReason::ReserveFailed)] {
            channel.tx.send(ChannelMessage { message: Some(message) }).await.unwrap();
        }
        link.refill(3, vec![1, 2]).await.unwrap();
        let failed = link.refill(4, vec![1, 2]).await.unwrap_err();
        assert_eq!(failed.downcast_ref::<SessionClosed>().unwrap().reason, CloseReason::ReserveFailed);
        let ended = link.delivered(0).await.err().unwrap();
        assert_eq!(ended.downcast_ref::<SessionClosed>().unwrap().reason, CloseReason::PeerLeft, "it was kept");
    }

    #[tokio::test]
    async fn a_reserve_that_is_replaced_is_told_with_who_did_it_and_is_no_part_of_the_session() {
        let (module, channel) = Duplex::pair(4);
        let monitor = Arc::new(Monitor::new(ModuleStatus::default()));
        let mut events = monitor.watch();
        let mut link = Link::new(module, monitor.clone());
        let replaced = ReserveReplaced { by: "control".to_owned(), unix_ms: 1, reserve_tags: 12 };
        for message in [
            channel_message::Message::ReserveReplaced(replaced.clone()),
            channel_message::Message::Opened(Opened { session: 7, ..Opened::default() }),
        ] {
            channel.tx.send(ChannelMessage { message: Some(message) }).await.unwrap();
        }
        assert_eq!(link.opened().await.unwrap().session, 7);
        assert_eq!(monitor.status().reserve_replaced, Some(replaced));
        let ModuleEvent { event: Some(Event::Note(note)), .. } = events.recv().await.unwrap() else {
            panic!("no note")
        };
        assert_eq!(note.name, "reserve-replaced");
        assert!(note.message.contains("`control`") && note.message.contains("12 tags"), "{}", note.message);
        let interventions = || {
            let mut figures = Figures::default();
            monitor.tell_uptime(&mut figures);
            figures.value(Figure::Interventions)
        };
        assert_eq!(interventions(), Some(1.0));
        monitor.request_recovery();
        assert_eq!(interventions(), Some(2.0), "an order to meet the peer again is one, too");
    }
}
