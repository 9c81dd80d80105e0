//! A bounded two-way stream of messages. Service logic is written on it and runs unchanged over gRPC and in memory.
//!
//! Both directions are bounded: a receiver that does not take its messages stops the sender, over gRPC through HTTP/2
//! flow control. Dropping `tx` ends this side's stream, after what was sent; `rx` yields `None` when the other side
//! has ended its own or is lost, which gRPC does not tell apart: a protocol that needs to know says its own farewell.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Response, Status, Streaming};

/// Time that the other side gets to take what was sent before it is cut off, once this side has left.
const LINGER: Duration = Duration::from_secs(5);

/// One end of a two-way stream: sends `S`, receives `R`.
#[derive(Debug)]
pub struct Duplex<S, R> {
    pub tx: mpsc::Sender<S>,
    pub rx: mpsc::Receiver<R>,
}

/// The other side is gone.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the other side has closed the stream")]
pub struct Closed;

impl<S, R> Duplex<S, R> {
    /// Two ends in memory; `capacity` messages may wait in each direction.
    pub fn pair(capacity: usize) -> (Self, Duplex<R, S>) {
        let (tx, peer_rx) = mpsc::channel(capacity.max(1));
        let (peer_tx, rx) = mpsc::channel(capacity.max(1));
        (Self { tx, rx }, Duplex { tx: peer_tx, rx: peer_rx })
    }

    /// Waits for room, then sends.
    pub async fn send(&self, message: S) -> Result<(), Closed> {
        self.tx.send(message).await.map_err(|_| Closed)
    }

    /// The next message; `None` when the other side has ended.
    pub async fn receive(&mut self) -> Option<R> {
        self.rx.recv().await
    }

    /// Ends this side's stream and waits for the other side to end its own, discarding what still comes. Whether it did
    /// so within the limit.
    pub async fn finish(self, limit: Duration) -> bool {
        let (tx, mut rx) = self.split();
        drop(tx);
        tokio::time::timeout(limit, async { while rx.recv().await.is_some() {} }).await.is_ok()
    }

    pub fn split(self) -> (mpsc::Sender<S>, mpsc::Receiver<R>) {
        (self.tx, self.rx)
    }
}

/// What a server's streaming method answers with. Ends when the logic drops its end.
pub type Answer<S> = Pin<Box<dyn Stream<Item = Result<S, Status>> + Send>>;

/// The server's side of a two-way streaming call: the logic's end, and the answer for the method to return at once.
///
/// The method must return the answer before the logic waits for the first message, or a client that waits for the
/// answer before it sends would wait for ever.
pub fn accept<S, R>(incoming: Streaming<R>, capacity: usize) -> (Duplex<S, R>, Response<Answer<S>>)
where
    S: Send + 'static,
    R: Send + 'static,
{
    let (tx, outgoing, sent) = Outgoing::channel(capacity);
    let rx = receive_from(incoming, capacity, sent, |_| Ok(()));
    let answer: Answer<S> = Box::pin(outgoing.map(Ok));
    (Duplex { tx, rx }, Response::new(answer))
}

/// As [`accept`], where what the other side says of itself is held against whom it has proved to be: a message that
/// `check` refuses ends the stream, and the call at once with that status.
pub fn accept_if<S, R>(
    incoming: Streaming<R>,
    capacity: usize,
    check: impl Fn(&R) -> Result<(), Status> + Send + 'static,
) -> (Duplex<S, R>, Response<Answer<S>>)
where
    S: Send + 'static,
    R: Send + 'static,
{
    let (tx, outgoing, sent) = Outgoing::channel(capacity);
    let (refusal, refused): (Arc<OnceLock<Status>>, _) = (Arc::default(), CancellationToken::new());
    let rx = receive_from(incoming, capacity, sent, {
        let (refusal, refused) = (refusal.clone(), refused.clone());
        move |message| {
            check(message).inspect_err(|status| {
                // The stream ends with the first one, so there is no other.
                let _ = refusal.set(status.clone());
                refused.cancel();
            })
        }
    });
    let verdict = async move { refusal.get().cloned().map(Err) };
    let accepted = outgoing.map(Ok).take_until(refused.cancelled_owned());
    let answer: Answer<S> = Box::pin(accepted.chain(stream::once(verdict).filter_map(ready)));
    (Duplex { tx, rx }, Response::new(answer))
}

/// The client's side: `call` gets the stream of what will be sent and makes the call with it.
///
/// ```
/// # use proto::channel::v1::{PeerFrame, channel_client::ChannelClient};
/// # use shell::duplex::{self, Duplex};
/// # async fn example(mut client: ChannelClient<tonic::transport::Channel>) -> Result<(), tonic::Status> {
/// let duplex: Duplex<PeerFrame, PeerFrame> =
///     duplex::open(4, |outgoing| async move { client.peer(outgoing).await }).await?;
/// # Ok(()) }
/// ```
pub async fn open<S, R, C, F>(capacity: usize, call: C) -> Result<Duplex<S, R>, Status>
where
    C: FnOnce(Outgoing<S>) -> F,
    F: Future<Output = Result<Response<Streaming<R>>, Status>>,
    R: Send + 'static,
{
    let (tx, outgoing, sent) = Outgoing::channel(capacity);
    let incoming = call(outgoing).await?.into_inner();
    Ok(Duplex { tx, rx: receive_from(incoming, capacity, sent, |_| Ok(())) })
}

/// What the logic sends, on its way to the wire.
#[derive(Debug)]
pub struct Outgoing<S> {
    messages: mpsc::Receiver<S>,
    /// Tells that everything was taken.
    _sent: DropGuard,
}

impl<S> Outgoing<S> {
    fn channel(capacity: usize) -> (mpsc::Sender<S>, Self, CancellationToken) {
        let (tx, messages) = mpsc::channel(capacity.max(1));
        let sent = CancellationToken::new();
        (tx, Self { messages, _sent: sent.clone().drop_guard() }, sent)
    }
}

impl<S> Stream for Outgoing<S> {
    type Item = S;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S>> {
        self.messages.poll_recv(cx)
    }
}

/// Moves messages from the wire to the logic, one at a time, so that what waits stays bounded.
fn receive_from<R: Send + 'static>(
    mut incoming: Streaming<R>,
    capacity: usize,
    sent: CancellationToken,
    check: impl Fn(&R) -> Result<(), Status> + Send + 'static,
) -> mpsc::Receiver<R> {
    let (tx, rx) = mpsc::channel(capacity.max(1));
    tokio::spawn(async move {
        // Room first: a message is taken from the wire only when the logic can have it.
        while let Ok(room) = tx.reserve().await {
            let message = tokio::select! {
                message = incoming.message() => message,
                () = tx.closed() => break,
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(code = ?status.code(), reason = status.message(), "stream ended");
                    return;
                }
            };
            match check(&message) {
                Ok(()) => room.send(message),
                Err(status) => {
                    tracing::warn!(reason = status.message(), "stream refused");
                    break;
                }
            }
        }
        drop(tx);
        linger(incoming, sent).await;
    });
    rx
}

/// Dropping the incoming stream resets the call, and with it what is still on its way out. So what comes is discarded
/// until the other side has ended, too, or has had its time.
async fn linger<R>(mut incoming: Streaming<R>, sent: CancellationToken) {
    let discarded = async { while let Ok(Some(_)) = incoming.message().await {} };
    let patience = async {
        sent.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = discarded => {}
        () = patience => {}
    }
}
