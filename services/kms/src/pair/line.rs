//! The stream of a dialogue, and what goes over it.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result, bail};
use proto::kms::v1::{PairHello, PairMessage, Share, ShareTaken, pair_message};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{PairStream, SILENCE};

/// Most that waits to be said.
const UNSAID_MAX: usize = 1 << 18;

/// A share of a multicast key that waits to be taken to the peer.
pub struct ShareOut {
    pub share: Share,
    pub taken: oneshot::Sender<bool>,
}

/// A dialogue's stream. What is said waits here until there is room, and meanwhile the peer is heard: so two ends that
/// have much to say never wait for each other.
pub(super) struct Line {
    stream: PairStream,
    unsaid: VecDeque<PairMessage>,
    /// Received, and not heard yet.
    next: Option<PairMessage>,
    /// One that says nothing for [`SILENCE`] has gone, whatever the connection says.
    heard: Instant,
}

impl Line {
    pub fn new(stream: PairStream) -> Self {
        Self { stream, unsaid: VecDeque::new(), next: None, heard: Instant::now() }
    }

    pub fn say(&mut self, message: pair_message::Message) -> Result<()> {
        if self.unsaid.len() >= UNSAID_MAX {
            bail!("the peer does not take what is said to it");
        }
        self.unsaid.push_back(PairMessage { message: Some(message) });
        Ok(())
    }

    /// Waits until all that was said is on its way.
    pub async fn flush(&mut self) -> Result<()> {
        let sent = async {
            while let Some(first) = self.unsaid.pop_front() {
                self.stream.send(first).await.ok().context("the peer has gone")?;
            }
            Ok(())
        };
        tokio::time::timeout(SILENCE, sent).await.context("the peer does not take what is said to it")?
    }

    /// Whether all that was said is on its way.
    pub fn is_said(&self) -> bool {
        self.unsaid.is_empty()
    }

    /// The next message. Loses nothing where it is not waited for to the end.
    pub async fn hear(&mut self) -> Result<pair_message::Message> {
        let message = loop {
            if let Some(next) = self.next.take() {
                break Some(next);
            }
            let Some(first) = self.unsaid.front() else { break self.stream.rx.recv().await };
            tokio::select! {
                message = self.stream.rx.recv() => break message,
                room = self.stream.tx.reserve() => {
                    room.ok().context("the peer has gone")?.send(first.clone());
                    self.unsaid.pop_front();
                }
            }
        };
        self.heard = Instant::now();
        message.context("the peer has gone")?.message.context("the peer said something unknown")
    }

    /// What of one kind has come already, in a row, at most `max` of it: what is decided together shares a commit.
    pub fn hear_more<T>(&mut self, max: usize, pick: impl Fn(&pair_message::Message) -> Option<T>) -> Vec<T> {
        let mut row = Vec::new();
        while row.len() < max && self.next.is_none() {
            let Ok(message) = self.stream.rx.try_recv() else { break };
            match message.message.as_ref().and_then(&pick) {
                Some(picked) => row.push(picked),
                None => self.next = Some(message),
            }
        }
        row
    }

    /// The first message, which must be a greeting.
    pub async fn hear_hello(&mut self) -> Result<PairHello> {
        match tokio::time::timeout(SILENCE, self.hear()).await.context("the peer says nothing")?? {
            pair_message::Message::Hello(hello) => Ok(hello),
            _ => bail!("the peer did not greet"),
        }
    }

    pub fn check(&self) -> Result<()> {
        if self.heard.elapsed() > SILENCE { bail!("the peer says nothing") } else { Ok(()) }
    }
}

/// What both ends do with shares of multicast keys: send ours, store theirs.
pub(super) fn send_share(
    line: &mut Line,
    waiting: &mut BTreeMap<Vec<u8>, oneshot::Sender<bool>>,
    out: ShareOut,
) -> Result<()> {
    waiting.insert(out.share.key_id.to_vec(), out.taken);
    line.say(pair_message::Message::Share(out.share))
}

pub(super) fn share_taken(waiting: &mut BTreeMap<Vec<u8>, oneshot::Sender<bool>>, answer: &ShareTaken) {
    if let Some(taken) = waiting.remove(&answer.key_id.to_vec()) {
        // Whoever asked may have given up.
        let _ = taken.send(answer.taken);
    }
}
